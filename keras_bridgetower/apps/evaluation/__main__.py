r"""Write mteb's result files of a preset.

    python -m keras_bridgetower.apps.evaluation results \
        --encoder bridgetower_large_itm_mlm_itc \
        --cross-encoder bridgetower_large_itm_mlm_itc \
        --tasks Flickr30kT2IRetrieval MSCOCOT2IRetrieval

The encoder searches; the cross-encoder reranks the first `--top-k` of each
list. Data sets come from the Hugging Face Hub, except that of `--pairs`.
"""

import argparse

import mteb

from keras_bridgetower.apps.evaluation import models
from keras_bridgetower.apps.evaluation import tasks as local


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--tasks", nargs="+", default=[], help="of mteb")
    parser.add_argument(
        "--pairs", help="your own table: image, text, false, and sort if wanted"
    )
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--cross-encoder")
    parser.add_argument("--top-k", type=int, default=20)
    settings = parser.parse_args()
    if not (settings.tasks or settings.pairs):
        parser.error("--tasks or --pairs must be given")
    tasks = [mteb.get_task(name) for name in settings.tasks]
    if settings.pairs:
        tasks += local.read_pairs(settings.pairs)
    encoder = models.BridgeTowerEncoder.from_preset(settings.encoder)
    cross_encoder = settings.cross_encoder and (
        models.BridgeTowerCrossEncoder.from_preset(settings.cross_encoder)
    )
    found = local.evaluate(
        settings.folder, tasks, encoder, cross_encoder, settings.top_k
    )
    for model, scores in found.items():
        for task, score in scores.items():
            print(f"{model}\t{task}\t{score:.4f}")


if __name__ == "__main__":
    main()
