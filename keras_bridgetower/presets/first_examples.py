"""Pictures and texts to try presets with.

A distribution of presets may have a folder `examples` beside its table: the
pictures, and `examples.json` with questions and texts about them.
"""

import pathlib

from keras_bridgetower.files import read_json
from keras_bridgetower.presets.table import HERE
from keras_bridgetower.presets.table import PRESETS
from keras_bridgetower.presets.table import default_family

FILE = "examples.json"


def first_examples(preset=None):
    """Return pictures and texts to try presets with.

    Args:
        preset: str, the name of a preset, for the examples of its
            distribution. By default, and for presets without examples, those
            of the default presets.

    Returns:
        dict from `"ask"`, `"match"`, `"search"`, `"fill"` and `"look"` to a
        list of `(picture, text)`, a `pathlib.Path` and a str. The picture is
        None beside a text that matches none. `"pictures"` has all pictures
        and their names.

    Example:

    ```python
    import keras_bridgetower as kbt

    vqa = kbt.BridgeTowerVQA.from_preset(kbt.default_family() + "vqa")
    for picture, question in kbt.first_examples()["ask"]:
        print(picture.name, question, vqa.answer(picture, question))
    ```
    """
    folder = _folder(preset)
    return {
        use: [(name and folder / name, text) for name, text in rows]
        for use, rows in read_json(folder / FILE).items()
    }


def _folder(preset):
    family = default_family()
    default = next(p for n, p in PRESETS.items() if n.startswith(family))
    chosen = PRESETS.get(preset, default)
    if chosen.handle:  # Published, without pictures.
        chosen = default
    folder = pathlib.Path(chosen.root or HERE, "examples")
    return folder if (folder / FILE).is_file() else HERE / "examples"
