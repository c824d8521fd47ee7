r"""Write mteb's result files of a preset.

    python -m keras_bridgetower.apps.evaluation results \
        --encoder bridgetower_large_itm_mlm_itc \
        --cross-encoder bridgetower_large_itm_mlm_itc \
        --tasks Flickr30kT2IRetrieval MSCOCOT2IRetrieval

The encoder searches; the cross-encoder reorders the first `--top-k` pictures
of each list. Data sets come from the Hugging Face Hub.
"""

import argparse
import tempfile

import mteb

from keras_bridgetower.apps.evaluation import models


def evaluate(folder, tasks, encoder, cross_encoder=None, top_k=20):
    """Run tasks of mteb, and write its result files.

    Args:
        folder: path, where mteb writes
            `results/<model>/<revision>/<task>.json`; files that are there are
            replaced.
        tasks: list of mteb's tasks.
        encoder: `BridgeTowerEncoder`.
        cross_encoder: `BridgeTowerCrossEncoder`, which reorders the lists of
            retrieval tasks, or None.
        top_k: int, how many pictures of a list it reorders.

    Returns:
        dict from the names of models to a dict from the names of tasks to
        their main scores.

    Raises:
        ValueError: a cross-encoder and a task that is no retrieval.

    Example:

    ```python
    evaluate("results", [mteb.get_task("Flickr30kT2IRetrieval")], encoder)
    ```
    """
    others = [t.metadata.name for t in tasks if not _makes_lists(t)]
    if cross_encoder is not None and others:
        raise ValueError(
            "`cross_encoder` reorders the lists of retrieval tasks. Received: "
            f"tasks {others}"
        )
    kept = {
        "cache": mteb.ResultCache(folder),
        "overwrite_strategy": "always",
        "show_progress_bar": False,
    }
    found = {}

    def run(model, tasks, **more):
        results = mteb.evaluate(model, tasks, **kept, **more)
        found[model.mteb_model_meta.name] = {
            one.task_name: one.get_score() for one in results
        }

    with tempfile.TemporaryDirectory() as lists:
        run(encoder, tasks, prediction_folder=lists)
        if cross_encoder is not None:
            run(
                cross_encoder,
                [task.convert_to_reranking(lists, top_k) for task in tasks],
            )
    return found


def _makes_lists(task):
    return hasattr(task, "convert_to_reranking")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--tasks", nargs="+", required=True)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--cross-encoder")
    parser.add_argument("--top-k", type=int, default=20)
    settings = parser.parse_args()
    cross_encoder = settings.cross_encoder
    if cross_encoder is not None:
        cross_encoder = models.BridgeTowerCrossEncoder.from_preset(
            cross_encoder
        )
    found = evaluate(
        settings.folder,
        mteb.get_tasks(tasks=settings.tasks),
        models.BridgeTowerEncoder.from_preset(settings.encoder),
        cross_encoder,
        settings.top_k,
    )
    for model, scores in found.items():
        for task, score in scores.items():
            print(f"{model}\t{task}\t{score:.4f}")


if __name__ == "__main__":
    main()
