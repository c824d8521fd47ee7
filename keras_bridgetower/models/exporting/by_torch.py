"""Writes PyTorch programs, ONNX and OpenVINO, on the PyTorch backend."""

import pathlib
import tempfile
import warnings

import keras
import numpy as np

from keras_bridgetower.models.exporting import by_torch as onnx_int8

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


# What runs in integers. Weights have a scale for each of their columns.
_PRODUCTS = ("MatMul", "Gemm", "Conv")
# Samples of one forward pass while ranges are measured.
_BATCH = 8
# Weights above it lie in a file beside the model.
_ONE_FILE = 1.5e9


def quantize(path, calibration):
    """Quantize an ONNX file in its place.

    Args:
        path: path of the file.
        calibration: dict of arrays, one for each input, with equally many
            rows. The ranges of activations are those that these rows show.
    """
    from onnxruntime.quantization import QuantFormat
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    path = pathlib.Path(path)
    files = [path, path.with_name(path.name + ".data")]
    large = sum(f.stat().st_size for f in files if f.exists()) > _ONE_FILE
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        simplified = pathlib.Path(folder) / "simplified.onnx"
        quant_pre_process(
            path,
            simplified,
            skip_symbolic_shape=True,  # It does not know free sizes.
            save_as_external_data=large,
        )
        for file in files:
            file.unlink(missing_ok=True)
        quantize_static(
            simplified,
            path,
            _rows(calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_PRODUCTS),
            nodes_to_exclude=_without_weights(simplified),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            use_external_data_format=large,
        )


def _without_weights(path):
    """Names of products of two activations."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    weights = {value.name for value in graph.initializer}
    return [
        node.name
        for node in graph.node
        if node.op_type in _PRODUCTS and not weights & set(node.input)
    ]


def _rows(calibration):
    """ONNX Runtime's reader of samples."""
    from onnxruntime.quantization import CalibrationDataReader

    arrays = {name: np.asarray(value) for name, value in calibration.items()}
    count = len(next(iter(arrays.values())))

    class Rows(CalibrationDataReader):
        def __init__(self):
            self.batches = iter(
                {name: a[i : i + _BATCH] for name, a in arrays.items()}
                for i in range(0, count, _BATCH)
            )

        def get_next(self):
            return next(self.batches, None)

    return Rows()
