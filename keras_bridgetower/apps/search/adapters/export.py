"""Writes a task as a folder of sentence-transformers."""

from keras_bridgetower.files import write_folder


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
