"""Where the vectors of a search lie: LanceDB or Qdrant."""
