"""Exported folders and parts, in int8 too, and their run without Keras."""

import json
import os
import subprocess
import sys

import every_task
import exported_files
import keras
import keras_hub
import numpy as np
import pytest
from builders import FASTEST
from builders import VOCABULARY
from builders import asking
from builders import backbone
from builders import clip
from builders import difference
from builders import features
from builders import randomise
from PIL import Image

import keras_bridgetower as kbt
from keras_bridgetower.apps.predict import calibration
from keras_bridgetower.models.exporting import exported as formats
from keras_bridgetower.models.exporting import runtime

pytestmark = exported_files.MARKS

BACKEND = keras.config.backend()
QUESTION = "is it blue?"
OPENVINO = pytest.param("openvino", marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """A photo with a rotation in its EXIF data, partly transparent."""
    path = tmp_path_factory.mktemp("pictures") / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (60, 40, 4), "uint8")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels, "RGBA").save(path, exif=exif)
    return path


WITHOUT_KERAS = """
import runpy, sys
for name in ("keras", "keras_bridgetower", "torch", "tensorflow", "jax"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@exported_files.ON_TORCH
@pytest.mark.parametrize("form", ["onnx", OPENVINO])
def test_exported_folder_runs_without_keras(form, picture, tmp_path):
    exported_files.need(form)
    task, folder = randomise(every_task.make("vqa")), tmp_path / "made" / "vqa"
    # Of its answers only two fit a question.
    fit = slice(1, 3)
    task.rejection = asking(task.answers, floor=0.99)
    task.export(folder, format=form)
    words = [folder / "run.py", picture, QUESTION]
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_KERAS, *map(str, words)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert ran.returncode == 0, ran.stderr
    answer, logit = json.loads(ran.stdout)
    given = {"images": [str(picture)], "text": [QUESTION]}
    (logits,) = task.predict(given, verbose=0)
    assert answer == task.answers[fit][logits[fit].argmax()]
    np.testing.assert_allclose(logit, logits[fit].max(), atol=1e-5)
    model = kbt.ExportedModel(folder)
    [(pairs, known)] = model.best_answers(logits[None], [QUESTION], 4)
    found = task.answer(str(picture), QUESTION, top_k=4)
    assert len(pairs) == 2 and dict(pairs) == pytest.approx(dict(found))
    assert known is found.known is False
    with pytest.raises(ValueError, match="not exist yet"):
        task.export(folder, format=form)


@FASTEST
@pytest.mark.parametrize("mode", ["squash", "crop", "center", "hf"])
@pytest.mark.parametrize("size", [(37, 200), (300, 31)])
def test_runtime_prepares_the_same_pixels(mode, size):
    # All other values with one of the sizes.
    others = {"crop_pct": 0.9, "resample": "box"} if size[0] == 37 else {}
    converter = kbt.BridgeTowerImageConverter(64, mode, 8, **others)
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), "uint8")
    made = runtime._square(Image.fromarray(pixels), converter.get_config())
    expected = converter(pixels) * converter.std + converter.mean
    np.testing.assert_allclose(np.asarray(made) / 255, expected, atol=1e-5)


@FASTEST
def test_runtime_prepares_the_same_tokens(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "play", "##ing", "!"]
    bert_tokenizer = kbt.BridgeTowerBertTokenizer(words, sequence_length=6)
    texts = ["Playing!", "play play play play play play", "other"]
    for made in (bert_tokenizer, every_task.tokenizer(24)):
        folder = tmp_path / type(made).__name__
        folder.mkdir()
        made.save_engine(folder)
        model = runtime.ExportedModel.__new__(runtime.ExportedModel)
        model.text = made.get_config()
        model.special = made.special_token_ids[:3]
        file = str(folder / "engine.json")
        model.engine = runtime.tokenizers.Tokenizer.from_file(file)
        found, expected = model._tokens(texts), made.encode(texts)
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])
        for text in (" ", "a\0"):
            with pytest.raises(ValueError, match="`texts` must not be empty"):
                model._tokens(["play", text])


@FASTEST
def test_runtime_rejects_invalid_inputs(tmp_path, monkeypatch):
    model = runtime.ExportedModel.__new__(runtime.ExportedModel)
    model.features = ["images", "token_ids", "padding_mask"]
    with pytest.raises(ValueError, match="`texts`"):
        model(["a.png"], ["a", "b"])
    path = tmp_path / "grey.png"
    Image.fromarray(np.full((9, 9), 30_000, "uint16")).save(path)
    with pytest.raises(ValueError, match="8 bits in each.*grey.png.*I;16"):
        runtime._open(path)
    # A model that fills masks.
    config = {"features": ["images", "token_ids"]}
    text = json.dumps({"config": config, "class_names": None})
    for name in ("preprocessor.json", "export.json", "a.onnx"):
        (tmp_path / name).write_text(text)
    inputs = [{"images"}, {"token_ids"}, {"mask_positions"}]
    monkeypatch.setattr(runtime, "load", lambda *_: (None, inputs))
    with pytest.raises(ValueError, match="does not make.*mask_positions"):
        runtime.ExportedModel(tmp_path)
    # A part of a model reads some of the features.
    del inputs[1:]
    assert runtime.ExportedModel(tmp_path).reads == ["pictures"]


@exported_files.ON_TORCH
def test_exported_parts_equal_the_model(tmp_path):
    import torch

    # Two states of each tower, whose order matters, and a text encoder with
    # which an export fails if a layer asks whether a text is long.
    text_encoder = keras_hub.models.RobertaBackbone(
        **dict(vocabulary_size=VOCABULARY, num_layers=2, num_heads=2),
        **dict(hidden_dim=16, intermediate_dim=16, max_sequence_length=300),
        dropout=0.0,
    )
    values = {"bridge": "adaptive_manager", "image_tokens": 9}
    body = backbone(clip(layers=2), text_encoder, **values)
    # A head that reads the similarity of the towers' vectors, and the words.
    values = {"ways": "three_way", "matching": "word_similarity_and_fused"}
    task = randomise(kbt.BridgeTowerRetrieval(body, projection_dim=8, **values))
    x, made = features(batch=4, tokens=9), {}
    paths = {p: tmp_path / f"{p}.pt2" for p in ("image_tower", "text_tower")}
    for part, path in paths.items():
        task.export(path, format="torch", part=part)
        names = getattr(task.backbone, part).input
        names = names if isinstance(names, dict) else ["images"]
        given = {name: x[name] for name in names}
        made[part] = exported_files.run("torch", path, given)
        weights_read = torch.export.load(path).state_dict
        assert 0 < len(weights_read) < len(task.weights) / 2
        assert not any("itm_head" in name for name in weights_read)
    assert made["image_tower"]["states"].shape[2] == 9
    fusion = tmp_path / "fusion.pt2"
    task.export(fusion, format="torch", part="fusion")
    # Each picture with the text of the next row.
    rows = np.roll(np.arange(4), -1)
    text, image = made["text_tower"], made["image_tower"]
    near = text["embedding"][rows] * image["embedding"]
    pairs = {
        "text_states": text["states"][rows],
        "padding_mask": x["padding_mask"][rows],
        "image_states": image["states"],
        "similarity": near.sum(axis=1),
    }
    found = exported_files.run("torch", fusion, pairs)
    paired = {k: v if k == "images" else v[rows] for k, v in x.items()}
    assert difference(found["itm_logits"], task(paired)) <= 1e-5
    contrastive = kbt.BridgeTowerContrastive(
        task.backbone, projection_dim=8, ways="three_way"
    )
    contrastive.heads["itc"].set_weights(task.heads["itc"].get_weights())
    expected = exported_files.by_name(contrastive(x))
    for name in ("image", "text"):
        embedding = made[f"{name}_tower"]["embedding"]
        assert difference(embedding, expected[name]) <= 1e-5


@FASTEST
def test_unavailable_parts_are_rejected(tmp_path):
    task = every_task.make("nlvr2")
    with pytest.raises(ValueError, match="`part` must be None.*backbone"):
        task.export(tmp_path / "a", format="torch", part="fusion")


@FASTEST
def test_export_command(tmp_path, run):
    preset, path = "bridgetower_tiny_easy_entailment", tmp_path / "tower.pt2"
    words = ("export", preset, path, "--format", "torch", "--json")
    report = json.loads(run(*words, "--part", "text_tower").out)
    assert report["task"] == "BridgeTowerEntailment" and path.is_file()


@exported_files.ON_TORCH
@pytest.mark.parametrize("form", ["onnx", OPENVINO])
def test_int8_is_close_and_smaller(form, tmp_path):
    exported_files.need(form)
    pytest.importorskip("onnxruntime", reason="the extra `export`")
    vqa = randomise(every_task.make("vqa"))
    samples = features(vqa, batch=16, tokens=8)
    small = tmp_path / f"vqa{formats.FORMATS[form].suffix}"
    vqa.export(small, format=form, calibration=samples)
    for x in (samples, features(vqa, tokens=6, seed=1)):
        expected = exported_files.by_name(vqa(x))["output"]
        found = exported_files.run(form, small, x)["output"]
        spread = expected.std()
        assert 1e-5 < np.abs(found - expected).max() / spread < 0.3
    if form == "onnx":
        assert len(matrices(small, "INT8", "UINT8")) > 30
        # Embeddings of words and of positions; others are biases.
        left = [tuple(x) for x in matrices(small, "FLOAT") if np.prod(x) > 16]
        assert {*left} == {(300, 16), (64, 16), (1, 17, 16)}
    else:
        whole = sum(4 * np.prod(weight.shape) for weight in vqa.weights)
        assert small.with_suffix(".bin").stat().st_size < 0.7 * whole


def matrices(path, *kinds):
    """List the sizes of the matrices of some types in an ONNX file."""
    import onnx

    types = [getattr(onnx.TensorProto, kind) for kind in kinds]
    stored = onnx.load(path).graph.initializer
    return [x.dims for x in stored if len(x.dims) > 1 and x.data_type in types]


@pytest.fixture
def table(tmp_path):
    """A table of five pictures, each with a text."""
    path, lines = tmp_path / "rows.csv", ["image,text"]
    for i in range(5):
        Image.new("RGB", (64, 64), (50 * i, 0, 9)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,is it {i}?")
    path.write_text("\n".join(lines))
    return path


@FASTEST
def test_samples_are_prepared_rows(table, tmp_path):
    task = every_task.make("vqa")
    for most, step in ((9, 1), (2, 3)):
        found = calibration.calibration_samples(task, table, most=most)
        raw = {
            "images": [str(tmp_path / f"{i}.png") for i in range(0, 5, step)],
            "text": [f"is it {i}?" for i in range(0, 5, step)],
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
    task = every_task.make("masked_lm")
    table.write_text("image,text\n0.png,is <mask>.\n1.png,<mask> <mask>?\n")
    found = calibration.calibration_samples(task, table)
    blank = task.preprocessor.tokenizer.mask_token_id
    assert sorted(found) == sorted(task.input)
    assert (found["token_ids"] == blank).sum(axis=1).tolist() == [1, 2]
    assert found["mask_positions"].shape == (2, 2)


@pytest.mark.slow
@FASTEST
def test_export_command_in_int8(table, tmp_path, run):
    exported_files.need("onnx")
    pytest.importorskip("onnxruntime", reason="the extra `export`")
    path = tmp_path / "small.onnx"
    words = ("export", "bridgetower_tiny_easy_vqa", path, "--json")
    said = run(*words, "--format", "onnx", "--int8", table)
    assert json.loads(said.out)["calibrated on"] == 5
    assert matrices(path, "INT8", "UINT8")
