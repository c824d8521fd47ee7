"""Embeddings and rerankers as LangChain, LanceDB and others call them."""

from keras_bridgetower.files import write_folder


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


def export_to_sentence_transformers(task, folder):
    """Write a folder that sentence-transformers opens, with a preset in it.

    `CrossEncoder(folder, trust_remote_code=True)` opens a matching task:
    `predict` and `rank` return `BridgeTowerRetrieval.score`. For a
    contrastive one `SentenceTransformer(folder, trust_remote_code=True)`
    returns `BridgeTowerContrastive.embed`. The folder has no code: where it is
    opened, keras_bridgetower must be installed.

    Args:
        task: a `BridgeTowerRetrieval` or a `BridgeTowerContrastive`, with a
            preprocessor.
        folder: path of a new folder.

    Raises:
        ValueError: another task, one without a preprocessor or with a new
            head, or a folder that exists.
        ImportError: the extra `integrations` is not installed.

    Example:

    ```python
    retrieval = BridgeTowerRetrieval.from_preset(
        "bridgetower_tiny_easy_retrieval")
    export_to_sentence_transformers(retrieval, "reranker")
    # sentence_transformers.CrossEncoder("reranker", trust_remote_code=True)
    ```
    """
    from keras_bridgetower.apps.search.adapters import sentence_transformers

    model = sentence_transformers.wrap_task(task)
    write_folder(
        folder,
        lambda part: model.save_pretrained(part, create_model_card=False),
        name="folder",
    )
