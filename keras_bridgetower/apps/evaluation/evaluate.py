"""Run tasks of mteb on a preset, and write mteb's result files."""

import copy
import tempfile

import mteb
from mteb.abstasks.retrieval import AbsTaskRetrieval

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
            the encoder finds of pictures for texts or texts for pictures. The
            encoder alone runs other tasks. Or None.
        top_k: int, pictures or texts of a list that it reranks.

    Returns:
        dict from the names of models to a dict from the names of tasks to
        their main scores.

    Raises:
        ValueError: `top_k` below 1.

    Example:

    ```python
    evaluate("results", [mteb.get_task("Flickr30kT2IRetrieval")], encoder)
    ```
    """
    check_count("top_k", top_k)
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
            searches = isinstance(task, AbsTaskRetrieval)
            reranked = searches and task.metadata.category in RERANKED
            if reranked and cross_encoder is not None:
                # The conversion changes a task and its data.
                again = copy.copy(task)
                if again.data_loaded:
                    again.unload_data()
                run(cross_encoder, again.convert_to_reranking(lists, top_k))
    return found
