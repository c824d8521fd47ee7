"""Opens a preprocessor from the files of a preset."""

from keras_bridgetower.preprocessing import image_converter
from keras_bridgetower.presets import configs

CONFIG = "preprocessor.json"


def check_parts(cls, pictures, texts, keywords):
    """Refuse values of a part that is not there, or was made already.

    Args:
        cls: the preprocessor's class.
        pictures: dict of constructor values of its image converter, None
            where they are left as saved.
        texts: the same of its tokenizer.
        keywords: dict, its own constructor values that the caller passes.

    Raises:
        ValueError: values that nothing would read.
    """
    for part, values in (("image_converter", pictures), ("tokenizer", texts)):
        given = _without_nones(values)
        if given and getattr(cls, f"{part}_cls") is None:
            wrong = f"{cls.__name__} has no {part}"
        elif given and part in keywords:
            wrong = f"set it in the `{part}` that you pass"
        else:
            continue
        name, value = next(iter(given.items()))
        name = "image_mode" if name == "mode" else name
        raise ValueError(
            f"`{name}` must be left out: {wrong}. Received: {name}={value!r}"
        )


def load(cls, base, folder, pictures, texts, keywords):
    """The preprocessor of an opened preset.

    Args:
        cls: class of the preprocessor.
        base: class that every saved preprocessor has. Of one that is no `cls`
            only its parts are taken.
        folder: `PresetFolder`.
        pictures, texts, keywords: as `check_parts`.

    Returns:
        A `cls`.
    """
    config = {}
    if folder.has(CONFIG):
        saved, config = folder.spec(CONFIG, base)
        parts = {key: config.pop(key, None) for key in _PARTS}
        cls, config = (saved, config) if issubclass(saved, cls) else (cls, {})
    else:
        parts = dict.fromkeys(_PARTS)
    made = {}
    if cls.tokenizer_cls is not None and "tokenizer" not in keywords:
        made["tokenizer"] = cls.tokenizer_cls.from_folder(
            folder, parts["tokenizer"], **_without_nones(texts)
        )
    if (
        cls.image_converter_cls is not None
        and "image_converter" not in keywords
    ):
        made["image_converter"] = folder.build(
            image_converter.CONFIG,
            cls.image_converter_cls,
            parts["image_converter"],
            **_without_nones(pictures),
        )
    with folder.reading(CONFIG):
        configs.check_values(config)
        configs.check_own_file(config, CONFIG, ())
    return folder.create(
        CONFIG, lambda values: cls(**values), {**config, **made}, keywords
    )


_PARTS = ("tokenizer", "image_converter")


def _without_nones(values):
    return {key: value for key, value in values.items() if value is not None}
