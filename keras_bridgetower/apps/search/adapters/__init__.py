"""Embeddings and rerankers as LangChain, LanceDB and others call them."""


def checked(pictures, name, place):
    """Return pictures if none is missing.

    Args:
        pictures: list of pictures, with None for what is missing.
        name: str, the argument that holds the documents, for the error.
        place: str, where a document has its picture.

    Raises:
        ValueError: one is missing.
    """
    for i, picture in enumerate(pictures):
        if picture is None:
            raise ValueError(
                f"`{name}[{i}]` must have a picture: {place}. Received: none"
            )
    return pictures
