"""Embedding classes for LangChain, LlamaIndex, LanceDB and Chroma."""
