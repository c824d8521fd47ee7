"""The method `export` of backbones and tasks."""

import functools
import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import NamedTuple

import keras
from keras import ops

from keras_bridgetower.backend.layer_records import check_not_quantized
from keras_bridgetower.checks import check_choice
from keras_bridgetower.encoders.registry import get_entry
from keras_bridgetower.encoders.registry import text_length
from keras_bridgetower.files import check_no_link
from keras_bridgetower.files import write_folder
from keras_bridgetower.models.checks import TOKEN_FEATURES
from keras_bridgetower.models.exporting import by_torch
from keras_bridgetower.models.heads import WORD_STATES
from keras_bridgetower.models.heads import SimilarityHead
from keras_bridgetower.models.heads import head_input
from keras_bridgetower.models.heads import tower_outputs

# Name of the model in a folder, before the suffix of its format.
MODEL = "model"


class Exported(keras.Model):
    """Abstract: a model that can be exported for programs without Keras."""

    def save(self, filepath, *args, **kwargs):
        """Save the model to a `.keras` file, as `keras.Model.save`.

        Raises:
            ValueError: a file of Keras' old format.
        """
        if str(filepath).endswith((".h5", ".hdf5")):
            raise ValueError(
                "`filepath` must end with `.keras`: nothing could load a file "
                f"of Keras' old format. Received: filepath={str(filepath)!r}"
            )
        super().save(filepath, *args, **kwargs)

    def export(
        self,
        filepath,
        format="tf_saved_model",
        verbose=None,
        input_signature=None,
        part=None,
        calibration=None,
        **kwargs,
    ):
        """Write the forward pass for programs without Keras.

        The exported function takes preprocessed features, in batches of any
        size and with texts of any length that the text encoder allows; the
        part `"fusion"` takes any number of image tokens.

        Args:
            filepath: path. With the suffix of the format, as in `"vqa.onnx"`,
                a single file is written. Otherwise it is a new folder with
                the model, the files of the preprocessor, and, for ONNX and
                OpenVINO, a `run.py` that runs the model without Keras.
            format: `"onnx"`, `"openvino"` or `"torch"`, with PyTorch;
                `"tf_saved_model"` with TensorFlow or JAX; `"litert"` with
                TensorFlow.
            verbose: bool, True to print where Keras wrote a SavedModel or
                LiteRT file. No other format prints anything.
            input_signature: list of one dict of `keras.InputSpec`, to fix
                sizes that are free by default.
            part: None for the whole model, or one part: `"image_tower"` or
                `"text_tower"`, which return the states that the fusion takes
                and, with contrastive heads, an embedding; or `"fusion"`.
            calibration: None for the model's own precision, or a dict of
                features, such as the preprocessor's output for a few hundred
                typical samples. The matrix products of an ONNX or OpenVINO
                file are then computed in int8, with the value ranges of these
                samples.
            **kwargs: of the writer of the format: `keras.Model.export`,
                `torch.export.export` or `torch.onnx.export`; for OpenVINO
                also `compress_to_fp16`.

        Raises:
            ValueError: a format that this backend cannot write, a part that
                the model does not have, a folder that exists, a link, or a
                quantized model in another format than torch and
                tf_saved_model.
            TypeError: `calibration` for a format without int8.
            ImportError: a package needed to write the format is missing.

        Example:

        ```python
        vqa.export("folder", format="onnx")  # Then: python folder/run.py
        vqa.export("vqa.onnx", format="onnx")
        # In int8:
        samples = vqa.preprocessor({"images": photos, "text": questions})
        vqa.export("int8", format="openvino", calibration=samples)
        ```
        """
        check_choice("format", format, tuple(FORMATS))
        chosen, backend = FORMATS[format], keras.config.backend()
        if backend not in chosen.backends:
            raise ValueError(
                f"`format={format!r}` is written with KERAS_BACKEND set to one "
                f"of {list(chosen.backends)}. Received: {backend}"
            )
        if not chosen.takes_quantized:
            # It would be written without an error, and nothing could run it.
            then = "pass `calibration`" if chosen.runs else "export that"
            check_not_quantized(self, f"`format={format!r}`", then)
        function = make_function(self, part).with_sizes(input_signature)
        _check_traceable(self, function, backend)
        if "torch" not in chosen.backends:
            kwargs["verbose"] = verbose
        if calibration is not None:
            kwargs["calibration"] = calibration
        path = pathlib.Path(os.fspath(filepath))
        check_no_link(path, "`filepath`")

        def save(folder):
            name = f"{part or MODEL}{chosen.suffix}" if chosen.suffix else ""
            chosen.write(function, pathlib.Path(folder, name), **kwargs)
            self._write_companions(pathlib.Path(folder), chosen, part)

        if not chosen.suffix:
            save(path)
        elif path.suffix == chosen.suffix:
            _write_files(path, lambda p: chosen.write(function, p, **kwargs))
        else:
            write_folder(path, save, name="filepath")

    def _write_companions(self, folder, chosen, part):
        """Write the files that a program needs beside an exported model.

        Args:
            folder: `pathlib.Path` of the folder with the model.
            chosen: `Format`.
            part: as `export`.
        """


def _write_files(path, write):
    """Write a file and its companions, all or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{path.name}.", dir=path.parent
    ) as folder:
        write(pathlib.Path(folder, path.name))
        for file in sorted(pathlib.Path(folder).iterdir()):
            os.replace(file, path.parent / file.name)


class Format(NamedTuple):
    """An export format.

    Args:
        backends: tuple of the backends that write it.
        write: callable of a `Function` and the path of the new file.
        suffix: str, suffix of its file; "" if it is a folder.
        runs: bool, True if `runtime.py` runs it, and `write` takes
            `calibration`.
        takes_quantized: bool, True if it can hold a model quantized by Keras.
    """

    backends: tuple
    write: Callable
    suffix: str
    runs: bool = False
    takes_quantized: bool = False


def write_saved_model(function, path, **kwargs):
    """Write a folder that `tf.saved_model.load` opens."""
    if keras.config.backend() == "jax":
        axes = {axis for f in function.features.values() for axis in f.shape}
        kwargs["jax2tf_kwargs"] = {
            # Shapes as JAX writes them, such as "(batch, tokens,)".
            "polymorphic_shapes": [
                {
                    name: f"({', '.join(map(str, feature.shape))},)"
                    for name, feature in function.features.items()
                }
            ],
            "polymorphic_constraints": [
                f"{axis} <= {size}"
                for axis, size in function.limits.items()
                if axis in axes
            ],
            # Gradients would trace it again, without the constraints.
            "with_gradient": False,
        } | kwargs.get("jax2tf_kwargs", {})
    _write_by_keras("tf_saved_model", function, path, **kwargs)


def _write_by_keras(form, function, path, **kwargs):
    signature = {
        name: keras.InputSpec(shape=f.sizes, dtype=f.dtype, name=name)
        for name, f in function.features.items()
    }
    # The method of `keras.Model`: our models override it.
    keras.Model.export(
        function.functional(),
        str(path),
        format=form,
        input_signature=[signature],
        **kwargs,
    )


FORMATS = {
    "onnx": Format(("torch",), by_torch.write_onnx, ".onnx", runs=True),
    "openvino": Format(("torch",), by_torch.write_openvino, ".xml", runs=True),
    "torch": Format(
        ("torch",), by_torch.write_program, ".pt2", takes_quantized=True
    ),
    "tf_saved_model": Format(
        ("tensorflow", "jax"), write_saved_model, "", takes_quantized=True
    ),
    "litert": Format(
        ("tensorflow",), functools.partial(_write_by_keras, "litert"), ".tflite"
    ),
}


# Axes of a feature whose sizes stay free in an exported file.
BATCH, TOKENS, MASKS, PATCHES = "batch", "tokens", "masks", "patches"
# Name of the output of a task with one head, which has none.
OUTPUT = "output"
# Heads that read the pooled representation of one picture and one text.
POOLED_HEADS = ("vqa", "entailment", "itm", "rank")


class Feature(NamedTuple):
    """One input of an exported function.

    Args:
        shape: tuple of ints and, for axes of any size, of their names.
        dtype: str.
    """

    shape: tuple
    dtype: str

    @property
    def sizes(self):
        """The shape as Keras writes it, with None for free axes."""
        return tuple(None if type(n) is str else n for n in self.shape)

    def fixed(self, sizes):
        """Return the feature with sizes for some free axes, by their names."""
        return Feature(tuple(sizes.get(n, n) for n in self.shape), self.dtype)


class Function(keras.Model):
    """The exported function: a computation with the layers of a model.

    Args:
        model: the backbone or task whose layers it uses.
        run: callable from a dict of tensors to a tensor or a dict.
        features: dict from names to `Feature`.

    Call arguments:
        inputs: dict of tensors, one for each feature.

    Returns:
        The result of `run`. A dict of dicts becomes one dict, with names such
        as `"itc.text"`.
    """

    def __init__(self, model, run, features):
        super().__init__(dtype=model.dtype_policy, name="exported")
        self.model, self.run = model, run
        encoder = getattr(model, "backbone", model).text_encoder
        limit = text_length(encoder)
        # The largest sizes of free axes.
        self.limits = {} if limit is None else {TOKENS: limit}
        if get_entry(encoder).fixed_length and "token_ids" in features:
            features = {k: f.fixed(self.limits) for k, f in features.items()}
        # Sorted by name: exports number the inputs in this order.
        self.features = dict(sorted(features.items()))
        self.built = True

    def call(self, inputs, training=None):
        outputs = self.run(inputs)
        if not isinstance(outputs, dict):
            return outputs
        named = keras.tree.flatten_with_path(outputs)
        return {".".join(path): value for path, value in named}

    def compute_output_spec(self, inputs, training=None):
        # Keras' own tries a text of 83 tokens, which may be too long.
        return keras.tree.map_structure(
            lambda x: keras.KerasTensor(x.shape, x.dtype), self.call(inputs)
        )

    def values(self, inputs):
        """Return the outputs as a tuple, in the order of `output_names`."""
        return tuple(keras.tree.flatten(self.call(inputs)))

    def functional(self):
        """Return the function as a functional model, for Keras' own exports."""
        inputs = {
            name: keras.Input(feature.sizes[1:], dtype=feature.dtype, name=name)
            for name, feature in self.features.items()
        }
        return keras.Model(inputs, self(inputs))

    def output_names(self):
        """Return the sorted names of the outputs."""
        outputs = self.functional().output
        return sorted(outputs) if isinstance(outputs, dict) else [OUTPUT]

    def with_sizes(self, signature):
        """Return the same function, with sizes that a user fixed.

        Args:
            signature: list of one dict of `keras.InputSpec`, or None.
        """
        if signature is None:
            return self
        (specs,) = signature
        features = {}
        for name, feature in self.features.items():
            shape = zip(feature.shape, specs[name].shape, strict=True)
            shape = tuple(size or axis for axis, size in shape)
            features[name] = Feature(shape, feature.dtype)
        return Function(self.model, self.run, features)


def _check_traceable(model, function, backend):
    """Raise if a backend cannot trace the text encoder of a function."""
    encoder = getattr(model, "backbone", model).text_encoder
    if backend in get_entry(encoder).not_exported and (
        "token_ids" in function.features
    ):
        raise ValueError(
            f"A {type(encoder).__name__} cannot be exported with KERAS_BACKEND="
            f"{backend!r}: KerasHub's class takes no texts of any length there."
            " Export from another backend, or the part image_tower or fusion."
        )


def make_function(model, part=None):
    """Make the exported function of a model or of a part of it.

    Args:
        model: `BridgeTowerBackbone` or `BridgeTowerTask`.
        part: None for the whole model, or a key of `PARTS`.

    Raises:
        ValueError: an unknown part, or a model that does not consist of them.
    """
    if part is None:
        return Function(model, model.call, _input_features(model))
    check_choice("part", part, tuple(PARTS))
    backbone = getattr(model, "backbone", model)
    inputs = model.input
    if any(
        name not in inputs or len(inputs[name].shape) != len(x.shape)
        for name, x in backbone.input.items()
    ):
        raise ValueError(
            f"`part` must be None for {type(model).__name__}: export "
            f"`task.backbone` with this part. Received: part={part!r}"
        )
    features, run = PARTS[part](model, backbone)
    return Function(model, run, features)


def _input_features(model):
    features = {}
    for name, x in model.input.items():
        free = TOKENS if name in TOKEN_FEATURES else MASKS
        sizes = (free if size is None else size for size in x.shape[1:])
        features[name] = Feature((BATCH, *sizes), x.dtype)
    return features


def tower_function(kind, model, backbone):
    """Return a function from the features of a tower to its outputs.

    Args:
        kind: `"text"` or `"image"`.
        model: `BridgeTowerBackbone` or `BridgeTowerTask`, with its heads.
        backbone: its `BridgeTowerBackbone`.
    """
    heads = getattr(model, "heads", {})
    tower = getattr(backbone, f"{kind}_tower")

    def run(inputs):
        states = tower(inputs["images"] if kind == "image" else inputs)
        return tower_outputs(backbone.fusion, heads, kind, states)

    return run


def _tower(kind, model, backbone):
    features = _input_features(backbone)
    names = ["images"] if kind == "image" else backbone.text_tower.input
    run = tower_function(kind, model, backbone)
    return {name: features[name] for name in names}, run


def fusion_function(model, backbone):
    """Return a function from projected states to the outputs of the fusion.

    Args:
        model, backbone: as of `tower_function`.
    """
    fusion = backbone.fusion
    heads = getattr(model, "heads", {})
    wanted = ("pooled",) if heads else ("text", "image", "pooled")
    if "mlm" in heads:
        wanted = ("text", "pooled")

    def states(x):
        return ops.unstack(ops.cast(x, fusion.compute_dtype), x.shape[1], 1)

    def run(inputs):
        mask = inputs["padding_mask"]
        given = states(inputs["text_states"]), states(inputs["image_states"])
        found = fusion.join(*given, mask, (*wanted, *WORD_STATES))
        outputs = {name: found[name] for name in wanted}
        pooled = outputs["pooled"]
        near = functools.partial(inputs.get, "similarity")
        for name in POOLED_HEADS:
            if name in heads:
                read = head_input(heads[name], found, near, mask)
                outputs[f"{name}_logits"] = heads[name](read)
        if "itc" in heads and heads["itc"].ways == "three_way":
            outputs["embedding"] = heads["itc"]({"fused": pooled})["fused"]
        return {k: ops.cast(x, "float32") for k, x in outputs.items()}

    return run


def _fusion(model, backbone):
    heads = getattr(model, "heads", {})
    width = backbone.fusion.hidden_dim
    taps = sum(tap is not None for tap in backbone.fusion.taps)
    features = {
        "text_states": Feature((BATCH, taps, TOKENS, width), "float32"),
        "image_states": Feature((BATCH, taps, PATCHES, width), "float32"),
        "padding_mask": Feature((BATCH, TOKENS), "int32"),
    }
    if any(isinstance(heads[name], SimilarityHead) for name in heads):
        features["similarity"] = Feature((BATCH,), "float32")
    return features, fusion_function(model, backbone)


PARTS = {
    "image_tower": functools.partial(_tower, "image"),
    "text_tower": functools.partial(_tower, "text"),
    "fusion": _fusion,
}
