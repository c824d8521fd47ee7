"""Run tasks of mteb on a preset, and write mteb's result files."""

import copy
import tempfile

import mteb

from keras_bridgetower.checks import check_count

# Tasks whose lists a cross-encoder can rerank: text and picture in a pair.
RERANKED = ("t2i", "i2t")


def evaluate(folder, tasks, encoder, cross_encoder=None, top_k=20):
    """Run tasks of mteb, and write its result files.

    Args:
        folder: path, where mteb writes
            `results/<model>/<revision>/<task>.json`. Existing files of the
            same model and revision are overwritten.
        tasks: list of mteb's tasks.
        encoder: `BridgeTowerEncoder`.
        cross_encoder: `BridgeTowerCrossEncoder`, which reranks the lists that
            the encoder finds, or None.
        top_k: int, pictures or texts of a list that it reranks.

    Returns:
        dict from the names of models to a dict from the names of tasks to
        their main scores.

    Raises:
        ValueError: a cross-encoder and a task that does not search pictures
            by texts or texts by pictures, or `top_k` below 1.

    Example:

    ```python
    evaluate("results", [mteb.get_task("Flickr30kT2IRetrieval")], encoder)
    ```
    """
    check_count("top_k", top_k)
    others = [
        task.metadata.name
        for task in tasks
        if task.metadata.category not in RERANKED
        or not hasattr(task, "convert_to_reranking")
    ]
    if cross_encoder is not None and others:
        raise ValueError(
            "`tasks` must search pictures by texts, or texts by pictures, to "
            f"be reranked. Received: {others}"
        )
    found = {}

    def run(model, task, **more):
        (result,) = mteb.evaluate(
            model,
            task,
            cache=mteb.ResultCache(folder),
            overwrite_strategy="always",
            show_progress_bar=False,
            **more,
        )
        scores = found.setdefault(model.mteb_model_meta.name, {})
        scores[result.task_name] = result.get_score()

    for task in tasks:
        with tempfile.TemporaryDirectory() as lists:
            run(encoder, task, prediction_folder=lists)
            if cross_encoder is not None:
                # The conversion changes a task and its data.
                again = copy.copy(task)
                if again.data_loaded:
                    again.unload_data()
                run(cross_encoder, again.convert_to_reranking(lists, top_k))
    return found
