"""Write PyTorch programs, ONNX, int8 ONNX and OpenVINO, by PyTorch."""

import pathlib
import tempfile
import types
import warnings

import keras
import numpy as np

# Sizes of the free axes while the function is traced. They differ, so that
# PyTorch cannot confuse two axes.
TRACED = {"batch": 3, "tokens": 5, "masks": 4, "patches": 7}
# Heads that leave out the first token read two others at least.
LEAST = {"tokens": 3, "patches": 3}
# Products of matrices that int8 computes.
_PRODUCTS = ("MatMul", "Gemm", "Conv")
# Samples per forward pass while value ranges are measured.
_BATCH = 8
# Larger weights, in bytes, are in a file beside the model.
_ONE_FILE = 1.5e9


def write_program(function, path, **kwargs):
    """Write a `.pt2` file, which `torch.export.load` opens."""
    import torch

    torch.export.save(traced(function, function.call, **kwargs), path)


def write_onnx(function, path, calibration=None, **kwargs):
    """Write an `.onnx` file, with weights above 1.5 GB in a file beside it.

    Args:
        function: `Function`.
        path: path of the new file.
        calibration: dict of features for int8, or None for float32.
        **kwargs: of `torch.onnx.export`.
    """
    import torch

    with warnings.catch_warnings():
        # Deprecations inside the converter.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _without_einsum(traced(function, function.values)),
            input_names=list(function.features),
            output_names=function.output_names(),
            dynamo=True,
            verbose=False,
            **kwargs,
        )
    _rename_others(program.model.graph)
    program.save(path)
    if calibration is not None:
        _quantize(path, calibration)


def _rename_others(graph):
    """Rename values that have the name of an output, such as "embedding".

    PyTorch names a value after its operation, and then renames the outputs.
    """
    outputs = {value.name: value for value in graph.outputs}
    inside = [value for node in graph for value in node.outputs]
    for value in [*inside, *graph.initializers.values()]:
        if outputs.get(value.name, value) is not value:
            value.name += "_inside"


def write_openvino(function, path, compress_to_fp16=False, **kwargs):
    """Write an `.xml` file and a `.bin` file of weights, from ONNX.

    OpenVINO's core reads ONNX, and does so without telemetry.
    """
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        onnx = pathlib.Path(folder) / "model.onnx"
        write_onnx(function, onnx, **kwargs)
        model = openvino.Core().read_model(onnx)
        openvino.save_model(model, path, compress_to_fp16=compress_to_fp16)


def traced(function, run, **kwargs):
    """Trace a function to a `torch.export.ExportedProgram`.

    Args:
        function: `Function`.
        run: its method to trace. Not `__call__`, which would check values
            that do not exist while tracing.
        **kwargs: of `torch.export.export`.
    """
    import torch

    features, limits = function.features, function.limits
    samples = {name: _sample(f, limits) for name, f in features.items()}
    weights = _used_weights(run, samples, function.model.weights)

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            # Weights outside of a module would be copied as constants.
            self.weights = torch.nn.ParameterDict()
            for v in weights:
                name = v.path.replace(".", "_")
                # Two encoders may have weights of the same path.
                while name in self.weights:
                    name += "_"
                self.weights[name] = v.value

        def forward(self, features):
            return run(features)

    names = {n for f in features.values() for n in f.shape if type(n) is str}
    axes = {
        n: torch.export.Dim(n, min=LEAST.get(n), max=limits.get(n))
        for n in names
    }
    free = {
        name: {i: axes[n] for i, n in enumerate(f.shape) if n in axes}
        for name, f in features.items()
    }
    values = {"strict": False, "dynamic_shapes": (free,)} | kwargs
    with torch.no_grad():
        return torch.export.export(Module().eval(), (samples,), **values)


def _used_weights(run, samples, weights):
    """List the weights that a function reads: a part of a model needs few."""
    read = set()

    class Recording(keras.StatelessScope):
        def get_current_value(self, variable):
            read.add(id(variable))
            return super().get_current_value(variable)

    with Recording():
        run(samples)
    return [v for v in weights if id(v) in read]


def _sample(feature, limits):
    """Return ones for a feature: a padding mask needs them."""
    sizes = {n: min(k, limits.get(n, k)) for n, k in TRACED.items()}
    shape = [sizes.get(n, n) for n in feature.shape]
    return keras.ops.ones(shape, dtype=feature.dtype)


def _without_einsum(program):
    """Replace Einsum, which runtimes cannot compute in integers."""
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
        # A dense layer over several axes: one product of matrices.
        x, weight = operands
        sizes = weight.shape[len(summed) :]
        weight = weight.flatten(0, len(summed) - 1).flatten(1)
        return (x.flatten(len(kept)) @ weight).unflatten(-1, sizes)

    return program.run_decompositions({einsum: product})


def _quantize(path, calibration):
    """Quantize the matrix products of an ONNX file to int8, in place.

    Weights, with one scale per column, and the activations that multiply them
    become integers. Everything else stays float32, including the products of
    attention, whose weights are mostly below 1/255. Inputs and outputs stay
    the same.

    Args:
        path: path of the file.
        calibration: dict of arrays, one for each input, with equally many
            rows. They determine the ranges of activations.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    path = pathlib.Path(path)
    files = [path, path.with_name(path.name + ".data")]
    large = sum(f.stat().st_size for f in files if f.exists()) > _ONE_FILE
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        simplified = pathlib.Path(folder) / "simplified.onnx"
        quant_pre_process(
            path,
            simplified,
            skip_symbolic_shape=True,  # It does not support free sizes.
            save_as_external_data=large,
        )
        for file in files:
            file.unlink(missing_ok=True)
        quantization.quantize_static(
            simplified,
            path,
            _samples(calibration),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(_PRODUCTS),
            nodes_to_exclude=_products_of_activations(simplified),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            use_external_data_format=large,
        )


def _products_of_activations(path):
    """List the names of products without a weight."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    weights = {value.name for value in graph.initializer}
    return [
        node.name
        for node in graph.node
        if node.op_type in _PRODUCTS and not weights & set(node.input)
    ]


def _samples(calibration):
    """Return ONNX Runtime's reader of samples."""
    arrays = {name: np.asarray(value) for name, value in calibration.items()}
    count = len(next(iter(arrays.values())))
    batches = (
        {name: a[i : i + _BATCH] for name, a in arrays.items()}
        for i in range(0, count, _BATCH)
    )
    return types.SimpleNamespace(get_next=lambda: next(batches, None))
