"""What a task takes from a preset beside its backbone."""

import warnings

from keras_bridgetower import named_heads
from keras_bridgetower.presets import registry

# What a preprocessor is made of, and the file that a preset holds of it.
PARTS = {
    "tokenizer": "tokenizer.json",
    "image_converter": "image_converter.json",
}


def preprocessor_of(cls, preset, image_size, values, backbone):
    """The preprocessor of a preset for a task class.

    Args:
        cls: the task class.
        preset: path of the preset folder.
        image_size: int, another side of the images, or None.
        values: dict, constructor values of the task.

    Returns:
        A preprocessor; None, with a warning, where a part of it is missing.

    Raises:
        ValueError: labels that neither the preset nor the caller names.
    """
    for part, file in PARTS.items():
        needed = getattr(cls.preprocessor_cls, f"{part}_cls") is not None
        if needed and registry.saved_config(preset, file) is None:
            warnings.warn(
                f"{cls.__name__} takes features only: there are no {part} "
                "files with the weights. Pass `preprocessor`.",
                stacklevel=3,
            )
            return None
    missing = [k for k in cls.label_arguments if values.get(k) is None]
    if missing:
        raise ValueError(
            f"`{missing[0]}` must be given: the preset does not hold it. "
            f"Received: preset={preset!r}, {missing[0]}=None"
        )
    chosen = {k: values[k] for k in cls.label_arguments}
    if "segment_ids" in backbone.input:
        chosen["features"] = _features_with_segments(cls, backbone)
    return cls.preprocessor_cls.from_preset(
        preset, image_size=image_size, **chosen
    )


def _features_with_segments(cls, backbone):
    """The features of a task over BERT: a preset may be of another task."""
    reads_images = cls.preprocessor_cls.image_converter_cls is not None
    reads_text = cls.preprocessor_cls.tokenizer_cls is not None
    return tuple(
        name
        for name in backbone.input
        if (reads_images if name == "images" else reads_text)
    )


def load_heads(model, preset, saved):
    """Load the heads that a preset holds; say which are new.

    Args:
        model: the task.
        preset: path of the preset folder.
        saved: dict, what its `heads.json` holds.
    """
    new = [
        name
        for name, values in model.head_values.items()
        if not named_heads.same(saved.get(name), values)
    ]
    model.heads.load(registry.file_of(preset, "task.weights.h5"), new)
    new = [n for n in new if n in model.start_heads(set(new))]
    if new:
        warnings.warn(
            f"New and random in this {type(model).__name__}: the head "
            f"{', '.join(new)}. The preset holds "
            f"{', '.join(saved) or 'no head'}"
            f"{' with other values' if set(new) & set(saved) else ''}. "
            "Train it before use.",
            stacklevel=3,
        )
