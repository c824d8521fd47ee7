"""Makes the matrix products of an ONNX file 8-bit integers, by ONNX Runtime.

Weights, and what is multiplied by them, become integers with a scale. All else
stays in float32, also the products of attention: most of its weights are below
1/255. The file keeps its inputs and outputs.
"""

import pathlib
import tempfile

import numpy as np

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
