"""Reads the pooling of sentence encoders."""

import pathlib

from keras_bridgetower import files
from keras_bridgetower.convert.tensors import read_json
from keras_bridgetower.presets.errors import ConversionError
from keras_bridgetower.presets.errors import converting
from keras_bridgetower.presets.safe_files import LARGEST_ASSET

MODULES = "modules.json"
# Poolings in the configurations of `sentence-transformers`, and ours.
SUMMARIES = {"mean_tokens": "mean", "cls_token": "start", "lasttoken": "end"}
# Newer configurations have one value instead of a key for each pooling.
_SHORT = {"mean": "mean_tokens", "cls": "cls_token"}
_MODE = "pooling_mode"


def text_summary(source):
    """Return the pooling with which a sentence encoder was trained.

    Pass it to the backbone beside `text_encoder(source)`, and embeddings are
    computed as published. Contrastive embeddings are normalized anyway, so a
    module that normalizes changes nothing.

    Args:
        source: path of a folder of `sentence-transformers`, such as
            all-MiniLM-L6-v2 or multilingual-e5-base.

    Returns:
        str: `"mean"`, `"start"` or `"end"`, a `text_summary` of
        `BridgeTowerBackbone`.

    Raises:
        ConversionError: damaged or missing files, another pooling, or modules
            after it that this library does not have.

    Example:

    ```python
    text_summary("all-MiniLM-L6-v2")  # "mean"
    ```
    """
    folder = pathlib.Path(source)
    path = _pooling(folder)
    config = read_json(path)
    modes = [
        key.removeprefix(f"{_MODE}_")
        for key, value in config.items()
        if key.startswith(f"{_MODE}_") and value is True
    ]
    if _MODE in config:
        modes.append(_SHORT.get(str(config[_MODE]), str(config[_MODE])))
    if len(modes) != 1 or modes[0] not in SUMMARIES:
        raise ConversionError(
            "The pooling of a sentence encoder must be one of "
            f"{list(SUMMARIES)}. Choose a `text_summary` of your own.",
            path,
            modes,
        )
    return SUMMARIES[modes[0]]


def _pooling(folder):
    """Return the path of the configuration of the pooling."""
    path = folder / MODULES
    problem = f"A folder of sentence-transformers needs a readable {MODULES}"
    with converting(problem, path):
        modules = files.read_json(path, LARGEST_ASSET)
        kinds = [module["type"].rpartition(".")[2] for module in modules]
        config = [f"{module['path']}/config.json" for module in modules][1]
        away = files.Below(folder).leads_out(config)
    wanted = ["Transformer", "Pooling"]
    if away or kinds not in (wanted, [*wanted, "Normalize"]):
        raise ConversionError(
            "A sentence encoder must have the modules Transformer, Pooling "
            "and, optionally, Normalize, inside its folder.",
            path,
            [*kinds, config],
        )
    return folder / config
