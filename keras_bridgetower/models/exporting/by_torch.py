"""Writes PyTorch programs, ONNX and OpenVINO, on the PyTorch backend."""

import pathlib
import tempfile
import warnings

import keras

from keras_bridgetower.models.exporting import onnx_int8

# Sizes of the free axes while the function is traced. They differ, so that
# PyTorch cannot take one axis for another.
TRACED = {"batch": 3, "tokens": 5, "masks": 4}


def write_program(function, path, **kwargs):
    """Write a `.pt2` file, which `torch.export.load` opens."""
    import torch

    torch.export.save(traced(function, function.call, **kwargs), path)


def write_onnx(function, path, calibration=None, **kwargs):
    """Write an `.onnx` file; weights above 1.5 GB lie in a file beside it.

    Args:
        function: `Function`.
        path: path of the new file.
        calibration: dict of features for int8, or None for float32.
        **kwargs: of `torch.onnx.export`.
    """
    import torch

    with warnings.catch_warnings():
        # Of the converter itself: its own deprecations.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _in_products(traced(function, function.values)),
            input_names=list(function.features),
            output_names=function.output_names(),
            dynamo=True,
            verbose=False,
            **kwargs,
        )
    _name_axes(program.model.graph, function.features)
    program.save(path)
    if calibration is not None:
        onnx_int8.quantize(path, calibration)


def write_openvino(function, path, compress_to_fp16=False, **kwargs):
    """Write an `.xml` file and the weights, `.bin`, by way of ONNX.

    Its reader of ONNX is a part of OpenVINO's core, and sends no statistics.
    """
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        onnx = pathlib.Path(folder) / "model.onnx"
        write_onnx(function, onnx, **kwargs)
        model = openvino.Core().read_model(onnx)
        openvino.save_model(model, path, compress_to_fp16=compress_to_fp16)


def traced(function, run, **kwargs):
    """The function as a `torch.export.ExportedProgram`.

    Args:
        function: `Function`.
        run: its method that is traced. Not `__call__`, which would check
            values that are not there.
        **kwargs: of `torch.export.export`.
    """
    import torch

    features, limits = function.features, function.limits
    samples = {name: _sample(f, limits) for name, f in features.items()}
    weights = _read_by(run, samples, function.model.weights)

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            # Weights that no module holds would be copied as constants.
            self.weights = torch.nn.ParameterDict(
                {v.path.replace(".", "_"): v.value for v in weights}
            )

        def forward(self, features):
            return run(features)

    names = {n for f in features.values() for n in f.shape if type(n) is str}
    axes = {n: torch.export.Dim(n, max=limits.get(n)) for n in names}
    free = {
        name: {i: axes[n] for i, n in enumerate(f.shape) if n in axes}
        for name, f in features.items()
    }
    values = {"strict": False, "dynamic_shapes": (free,)} | kwargs
    with torch.no_grad():
        return torch.export.export(Module().eval(), (samples,), **values)


def _read_by(run, samples, weights):
    """Those weights that a function reads: a part of a model needs few."""
    read = set()

    class Noting(keras.StatelessScope):
        def get_current_value(self, variable):
            read.add(id(variable))
            return super().get_current_value(variable)

    with Noting():
        run(samples)
    return [v for v in weights if id(v) in read]


def _sample(feature, limits):
    """Ones in place of a feature: a padding mask needs them."""
    sizes = {n: min(k, limits.get(n, k)) for n, k in TRACED.items()}
    shape = [sizes.get(n, n) for n in feature.shape]
    return keras.ops.ones(shape, dtype=feature.dtype)


def _in_products(program):
    """A program without Einsum, which runtimes do not compute in integers."""
    import torch

    einsum = torch.ops.aten.einsum.default

    def product(equation, operands):
        inputs, out = equation.replace(" ", "").split("->")
        left, _, right = inputs.partition(",")
        kept = "".join(axis for axis in left if axis not in right)
        summed = left[len(kept) :]
        new = right[len(summed) :]
        if (left, right, out) != (kept + summed, summed + new, kept + new):
            return NotImplemented
        # A dense layer of several axes: one product of matrices.
        x, weight = operands
        sizes = weight.shape[len(summed) :]
        weight = weight.flatten(0, len(summed) - 1).flatten(1)
        return (x.flatten(len(kept)) @ weight).unflatten(-1, sizes)

    return program.run_decompositions({einsum: product})


def _name_axes(graph, features):
    """Give the free axes of an ONNX graph the names that users know."""
    names = {
        str(size): axis
        for value in graph.inputs
        for size, axis in zip(
            value.shape, features[value.name].shape, strict=True
        )
        if type(axis) is str
    }
    outputs = {value.name: value for value in graph.outputs}
    made = [value for node in graph for value in node.outputs]
    for value in made:
        # The converter names values inside after operations, and checks
        # nothing.
        if value is not outputs.get(value.name, value):
            value.name = f"{value.name}_inside"
    for value in (*graph.inputs, *made):
        for place, size in enumerate(value.shape or ()):
            if str(size) in names:
                value.shape[place] = names[str(size)]
