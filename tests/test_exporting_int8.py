"""Exports whose matrix products are computed in int8."""

import json

import every_task
import exported_files
import keras
import numpy as np
import pytest
from builders import FASTEST
from builders import features
from builders import randomise
from PIL import Image

import keras_bridgetower as kbt
from keras_bridgetower.apps.cli import main
from keras_bridgetower.apps.predict import calibration
from keras_bridgetower.models.exporting import exported as formats

BACKEND = keras.config.backend()
pytestmark = exported_files.MARKS


@pytest.fixture(scope="module")
def vqa():
    return randomise(every_task.make("vqa"))


@exported_files.ON_TORCH
@pytest.mark.parametrize(
    "form", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)]
)
def test_int8_is_close_and_smaller(form, vqa, tmp_path):
    exported_files.need(form)
    pytest.importorskip("onnxruntime", reason="the extra `export`")
    samples = features(vqa, batch=16, tokens=8)
    small = tmp_path / f"vqa{formats.FORMATS[form].suffix}"
    vqa.export(small, format=form, calibration=samples)
    for x in (samples, features(vqa, tokens=6, seed=1)):
        expected = exported_files.by_name(vqa(x))["output"]
        found = exported_files.run(form, small, x)["output"]
        spread = expected.std()
        assert 1e-5 < np.abs(found - expected).max() / spread < 0.3
    if form == "onnx":
        assert not _weights_in_float(small)
        assert _matrices(small, "INT8", "UINT8")
    else:
        whole = sum(4 * np.prod(weight.shape) for weight in vqa.weights)
        assert small.with_suffix(".bin").stat().st_size < 0.7 * whole


def _matrices(path, *kinds):
    """List the weights of some types with several axes in an ONNX file."""
    import onnx

    types = [getattr(onnx.TensorProto, kind) for kind in kinds]
    stored = onnx.load(path).graph.initializer
    return [x for x in stored if len(x.dims) > 1 and x.data_type in types]


def _weights_in_float(path):
    """List the float matrices that products of an ONNX file read."""
    import onnx

    graph = onnx.load(path).graph
    names = {x.name for x in graph.initializer if len(x.dims) > 1}
    # The file itself may still give a weight another shape.
    for node in graph.node:
        if node.op_type in ("Reshape", "Transpose") and node.input[0] in names:
            names.update(node.output)
    products = ("MatMul", "Gemm", "Conv", "Einsum")
    return [
        name
        for node in graph.node
        if node.op_type in products
        for name in node.input
        if name in names
    ]


@pytest.fixture
def table(tmp_path):
    """A table of five pictures, each with a text, and their pixels."""
    rng = np.random.default_rng(0)
    rows = [
        (f"{i}.png", ("what is it?", "is it red?")[i % 2]) for i in range(5)
    ]
    for name, _ in rows:
        pixels = rng.integers(0, 256, (64, 64, 3), "uint8")
        Image.fromarray(pixels).save(tmp_path / name)
    path = tmp_path / "rows.csv"
    lines = [",".join(row) for row in (("image", "text"), *rows)]
    path.write_text("\n".join(lines))
    return path, rows


@FASTEST
def test_samples_are_prepared_rows(table, tmp_path):
    path, rows = table
    task = kbt.BridgeTowerVQA.from_preset("bridgetower_tiny_easy_vqa")
    for most, step in ((9, 1), (2, 3)):
        found = calibration.calibration_samples(task, path, most=most)
        raw = {
            "images": [str(tmp_path / name) for name, _ in rows[::step]],
            "text": [text for _, text in rows[::step]],
        }
        for name, value in task.preprocessor(raw).items():
            np.testing.assert_array_equal(found[name], value)
    samples = calibration.calibration_samples(task, tmp_path, ["a", "b"])
    assert len(samples["images"]) == 10
    task = every_task.make("nlvr2")
    path = tmp_path / "pairs.jsonl"
    row = {"image": "0.png", "second_image": "1.png", "text": "a"}
    path.write_text(json.dumps(row))
    pair = calibration.calibration_samples(task, path)["images"]
    assert pair.shape[:2] == (1, 2) and (pair[0, 0] != pair[0, 1]).any()
    path.write_text(json.dumps(row | {"image": "rows.csv"}))
    with pytest.raises(ValueError, match="`image`"):
        calibration.calibration_samples(task, path)
    path.write_text(json.dumps({"image": "0.png"}))
    with pytest.raises(ValueError, match="Row 0 of SOURCE: it must have"):
        calibration.calibration_samples(task, path)


@FASTEST
def test_many_rows_are_thinned_evenly(tmp_path):
    rows = [json.dumps({"text": f"row {i}"}) for i in range(300)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(rows))
    task = every_task.make("text_classifier")
    found = calibration.calibration_samples(task, path)["token_ids"]
    assert found.shape[0] == 256
    read = [int(task.preprocessor.tokenizer.detokenize(x)[4:]) for x in found]
    assert read == sorted(set(read))
    assert np.abs(np.diff(read)).max() <= 3 and read[-1] >= 298
    # Each row with both texts: neither of them is left out.
    folder, asked = tmp_path / "pictures", ["a", "is it red?"]
    folder.mkdir()
    for i in range(20):
        Image.new("RGB", (32, 32), (i, 0, 0)).save(folder / f"{i}.png")
    vqa = every_task.make("vqa")
    found = calibration.calibration_samples(vqa, folder, asked, most=20)
    lengths = found["padding_mask"].sum(axis=1)
    assert sorted(set(lengths)) == [3, 12]
    assert 7 <= (lengths == 3).sum() <= 13


@FASTEST
def test_samples_of_tasks_with_drawn_labels(table):
    path, rows = table
    task = every_task.make("masked_lm")
    path.write_text("image,text\n0.png,it is <mask>.\n1.png,<mask> <mask>?\n")
    found = calibration.calibration_samples(task, path)
    blank = task.preprocessor.tokenizer.mask_token_id
    assert sorted(found) == sorted(task.input)
    assert (found["token_ids"] == blank).sum(axis=1).tolist() == [1, 2]
    assert found["mask_positions"].shape == (2, 2)


@pytest.mark.slow
@FASTEST
def test_export_command_in_int8(table, tmp_path, capsys):
    exported_files.need("onnx")
    pytest.importorskip("onnxruntime", reason="the extra `export`")
    path = tmp_path / "small.onnx"
    words = ["export", "bridgetower_tiny_easy_vqa", str(path), "--json"]
    words += ["--format", "onnx", "--int8", str(table[0])]
    assert main.main(words) == 0
    assert json.loads(capsys.readouterr().out)["calibrated on"] == 5
    assert not _weights_in_float(path)
    path = tmp_path / "whole.onnx"
    kbt.BridgeTowerVQA.from_preset(words[1]).export(path, format="onnx")
    assert _weights_in_float(path)
