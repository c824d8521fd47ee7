"""Reads the linear classifier that was trained on top of an image encoder."""

from keras_bridgetower.convert.checkpoint import load_weights
from keras_bridgetower.convert.checkpoint import variables_by_path
from keras_bridgetower.convert.tensors import open_tensors
from keras_bridgetower.convert.tensors import weight_file
from keras_bridgetower.encoders.classified import ClassifiedEncoder
from keras_bridgetower.encoders.registry import entry_of
from keras_bridgetower.encoders.rules import dense
from keras_bridgetower.presets.errors import ConversionError


def read(encoder, path):
    """Return a `ClassifiedEncoder` of an encoder and its classifier.

    Args:
        encoder: image encoder.
        path: `pathlib.Path` of the `transformers` folder or the state dict
            that it was read from.

    Raises:
        ConversionError: there is no linear classifier of its highest map.
    """
    tensors = open_tensors(path if path.is_file() else weight_file(path))
    found = []
    for key in filter(None, (f.classifier for f in entry_of(encoder).files)):
        names = f"{key}.weight", f"{key}.bias"
        weight, bias = (tensors.shapes.get(name, ()) for name in names)
        if len(bias) == 1 and weight == (*bias, encoder.output.shape[-1]):
            model = ClassifiedEncoder(encoder, *bias)
            variables = variables_by_path(model.get_layer("classes"))
            load_weights(dense("classes", key), tensors, variables)
            return model
        found += [f"{n}: {tensors.shapes.get(n, 'missing')}" for n in names]
    raise missing(path, found)


def missing(path, found=()):
    """Return the error of files without a classifier.

    Args:
        path: path of the files.
        found: list of str, what was found in its place.
    """
    return ConversionError(
        "`with_classifier=True` needs a `transformers` folder or a state dict "
        "of EfficientNet, ResNet or Swin with a linear classifier.",
        path,
        found,
    )
