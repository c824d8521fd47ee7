"""Embeddings and rerankers as LangChain, LanceDB and others call them."""
