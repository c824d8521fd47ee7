"""Stores of vectors: LanceDB and Qdrant."""
