"""Search that never looks at a picture: by the words of names and keywords."""

import bm25s
import numpy as np


def keyword_scores(queries, documents):
    """BM25 of each query for each document.

    Args:
        queries, documents: lists of str.

    Returns:
        float array `(queries, documents)`.
    """
    index = bm25s.BM25()
    index.index(_words(documents), show_progress=False)
    rows = []
    for words in _words(queries):
        known = [word for word in words if word in index.vocab_dict]
        rows.append(
            index.get_scores(known) if known else np.zeros(len(documents))
        )
    return np.stack(rows)


def _words(texts):
    return bm25s.tokenize(texts, return_ids=False, show_progress=False)


def documents(emoji, words_of):
    """The name and the keywords of each emoji, as one text."""
    return [" ".join([one.name, *words_of(one)]) for one in emoji]
