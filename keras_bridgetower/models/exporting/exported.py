"""The method `export` of backbones and tasks."""

import os
import pathlib
import tempfile

import keras

from keras_bridgetower.backend.quantization import check_not_quantized
from keras_bridgetower.files import check_no_link
from keras_bridgetower.files import write_folder
from keras_bridgetower.models.exporting.formats import FORMATS
from keras_bridgetower.models.exporting.formats import check_installed
from keras_bridgetower.models.exporting.formats import format_of
from keras_bridgetower.models.exporting.parts import function_of

# The name of the model in a folder, before the suffix of its format.
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
                "`filepath` must end with `.keras`. Keras' old format would "
                "write a file that nothing can load; `save_weights` takes "
                f"`.weights.h5`. Received: filepath={str(filepath)!r}"
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

        The exported function takes the features that a preprocessor makes, in
        batches of any size and texts of any length that the text encoder
        allows.

        Args:
            filepath: path. With the suffix of the format, as in `"vqa.onnx"`,
                one file is written, alone. Otherwise it is a new folder: it
                gets the model, the files of the preprocessor, and, for ONNX
                and OpenVINO, a `run.py` that asks the model without Keras.
            format: `"onnx"`, `"openvino"` or `"torch"`, with PyTorch;
                `"tf_saved_model"` with TensorFlow or JAX; `"litert"` with
                TensorFlow.
            verbose: bool, whether Keras tells where it wrote a SavedModel or
                LiteRT.
            input_signature: list of one dict of `keras.InputSpec`, to fix
                sizes that are free by default.
            part: None, or what is exported in place of the whole model:
                `"image_tower"` or `"text_tower"`, which return the states
                that the fusion takes and, with contrastive heads, an
                embedding; or `"fusion"`.
            calibration: None for the model's own precision, or a dict of
                features, such as the preprocessor makes of some hundred
                typical samples. With it the matrix products of an ONNX or
                OpenVINO file are computed in int8, with the ranges that these
                samples show.
            **kwargs: of what writes the format: `keras.Model.export`,
                `torch.export.export` or `torch.onnx.export`; for OpenVINO
                also `compress_to_fp16`.

        Raises:
            ValueError: a format that this backend does not write, a part that
                the model does not have, a folder that exists, a link,
                `calibration` of other features or for another format, or a
                quantized model in another format than torch and
                tf_saved_model.
            ImportError: a package that writes the format is not installed.

        Example:

        ```python
        vqa.export("folder", format="onnx")  # Then: python folder/run.py
        vqa.export("vqa.onnx", format="onnx")
        # In int8:
        samples = vqa.preprocessor({"images": photos, "text": questions})
        vqa.export("int8", format="openvino", calibration=samples)
        ```
        """
        chosen = format_of(format)
        if not chosen.takes_quantized:
            # They are written without complaint, and then nothing runs them.
            then = "pass `calibration`" if chosen.quantizes else "export that"
            check_not_quantized(self, f"`format={format!r}`", then)
        function = function_of(self, part).with_sizes(input_signature)
        if chosen.tells:
            kwargs["verbose"] = verbose
        elif verbose:
            raise ValueError(
                "`verbose` must be left out: only Keras' own exports, "
                "'tf_saved_model' and 'litert', print anything. "
                f"Received: verbose={verbose!r}, format={format!r}"
            )
        if calibration is not None:
            _check_calibration(calibration, function, format)
            kwargs["calibration"] = calibration
        path = pathlib.Path(os.fspath(filepath))
        check_no_link(path, "`filepath`")
        if not chosen.suffix:
            chosen.write(function, path, **kwargs)
            self._write_companions(path, chosen, part)
        elif path.suffix == chosen.suffix:
            _write_files(path, lambda p: chosen.write(function, p, **kwargs))
        else:
            _check_new(path, format, chosen)

            def save(folder):
                folder = pathlib.Path(folder)
                file = folder / f"{part or MODEL}{chosen.suffix}"
                chosen.write(function, file, **kwargs)
                self._write_companions(folder, chosen, part)

            write_folder(path, save)

    def _write_companions(self, folder, chosen, part):
        """Write what a program needs beside an exported model.

        Args:
            folder: `pathlib.Path` of the folder with the model.
            chosen: `Format`.
            part: as `export`.
        """


def _write_files(path, write):
    """Write a file, and those that belong to it, as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{path.name}.", dir=path.parent
    ) as folder:
        write(pathlib.Path(folder) / path.name)
        for made in sorted(pathlib.Path(folder).iterdir()):
            os.replace(made, path.parent / made.name)


def _check_calibration(calibration, function, name):
    able = [form for form, found in FORMATS.items() if found.quantizes]
    if name not in able:
        raise ValueError(
            f"`calibration` must be None but for `format` in {able}. "
            f"Received: calibration with format={name!r}"
        )
    check_installed("calibration", ("onnxruntime",))
    names = list(function.features)
    if not isinstance(calibration, dict):
        raise ValueError(
            f"`calibration` must be a dict of the features {names}. Of a "
            "preprocessor that makes labels too, pass the first of what it "
            f"returns. Received: {type(calibration).__name__}"
        )
    rows = {len(value) for value in calibration.values()}
    if sorted(calibration) != names or len(rows) != 1 or rows == {0}:
        raise ValueError(
            f"`calibration` must be a dict of the features {names}, each with "
            "as many rows, such as the preprocessor makes of samples. "
            f"Received: {sorted(calibration)} with {sorted(rows)} rows"
        )


def _check_new(path, name, chosen):
    if path.exists():
        raise ValueError(
            "`filepath` must be a folder that does not exist yet, or a file "
            f"that ends with {chosen.suffix!r}. Remove it or choose another. "
            f"Received: filepath={str(path)!r} with format={name!r}"
        )
