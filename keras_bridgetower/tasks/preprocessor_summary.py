"""What a preprocessor is made of, in words."""

import keras_hub

from keras_bridgetower.backend import keras_patches


def described(preprocessor):
    """Lines about a preprocessor, for the summary of a task.

    Args:
        preprocessor: a `keras_hub.models.Preprocessor`.

    Returns:
        str, its name and a line for each tokenizer and image converter.
    """
    lines = [f'Preprocessor: "{preprocessor.name}"']
    for layer in keras_patches.layers_in(preprocessor):
        if isinstance(layer, keras_hub.tokenizers.Tokenizer):
            told = f"vocabulary size {layer.vocabulary_size():,}"
        elif isinstance(layer, keras_hub.layers.ImageConverter):
            told = f"image size {layer.image_size}"
        else:
            continue
        lines.append(f"  {layer.name} ({type(layer).__name__}): {told}")
    return "\n".join(lines)
