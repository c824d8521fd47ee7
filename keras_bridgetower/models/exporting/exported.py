"""The method `export` of backbones and tasks."""

import os
import pathlib
import tempfile

import keras

from keras_bridgetower.backend.layer_records import check_not_quantized
from keras_bridgetower.files import check_no_link
from keras_bridgetower.files import write_folder
from keras_bridgetower.models.exporting import formats
from keras_bridgetower.models.exporting.function import make_function

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
        size and with texts of any length that the text encoder allows.

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
                the model does not have, a folder that exists, a link,
                `calibration` with other features or for another format, or a
                quantized model in another format than torch and
                tf_saved_model.
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
        chosen = formats.get(format)
        if not chosen.takes_quantized:
            # It would be written without an error, and nothing could run it.
            then = "pass `calibration`" if chosen.calibrates else "export that"
            check_not_quantized(self, f"`format={format!r}`", then)
        function = make_function(self, part).with_sizes(input_signature)
        if chosen.verbose:
            kwargs["verbose"] = verbose
        if calibration is not None:
            _check_calibration(calibration, function, format)
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
        elif path.exists():
            raise ValueError(
                "`filepath` must be a folder that does not exist yet, or a "
                f"file that ends with {chosen.suffix!r}. Received: "
                f"filepath={str(path)!r} with format={format!r}"
            )
        else:
            write_folder(path, save)

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


def _check_calibration(calibration, function, name):
    able = [form for form, f in formats.FORMATS.items() if f.calibrates]
    if name not in able:
        raise ValueError(
            f"`calibration` must be None but for `format` in {able}. "
            f"Received: calibration with format={name!r}"
        )
    formats.check_installed("calibration", ("onnxruntime",))
    names = list(function.features)
    if not isinstance(calibration, dict) or sorted(calibration) != names:
        raise ValueError(
            f"`calibration` must be a dict of the features {names}, such as "
            "the preprocessor's output, or the first of its outputs. "
            f"Received: calibration={calibration!r:.100}"
        )
