"""Run presets in mteb, the benchmark of embeddings and rerankers."""
