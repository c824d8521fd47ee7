"""How much the page takes from a visitor, as values."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the page takes at most.

    Args:
        pixels: int, pixels of a picture. Decoding takes up to 10 bytes each.
        file_bytes: int, size of an uploaded file.
        characters: int, length of a text.
        texts: int, texts of a heat map.
        pictures: int, pictures of a heat map.
        searched: int, uploaded pictures of a search.
        hits: int, pictures that a search shows.
        at_once: int, requests that models work on at the same time. Others
            wait.
        waiting: int, requests that wait. Others are refused.
        models: int, models in memory.
        indexes: int, indexes of pictures that are kept.
    """

    pixels: int = 50_000_000
    file_bytes: int = 30_000_000
    characters: int = 300
    texts: int = 8
    pictures: int = 8
    searched: int = 200
    hits: int = 6
    at_once: int = 4
    waiting: int = 64
    models: int = 8
    indexes: int = 8
