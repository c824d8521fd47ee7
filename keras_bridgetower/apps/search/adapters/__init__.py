"""Embeddings as the classes of LangChain, LlamaIndex, LanceDB and Chroma."""
