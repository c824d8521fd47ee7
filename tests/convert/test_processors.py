"""Tokenizer and image processor files, both ways."""

import json
import pathlib
import shutil

import checkpoints
import numpy as np
import pytest
import transformers
from builders import LONG_ELSEWHERE
from builders import difference
from builders import tokenizer

import keras_bridgetower as kbt
from keras_bridgetower.convert import processors
from keras_bridgetower.convert.transformers_folder import read
from keras_bridgetower.preprocessing.images import MEAN
from keras_bridgetower.preprocessing.images import STD
from keras_bridgetower.presets.errors import ConversionError

pytestmark = LONG_ELSEWHERE

ROBERTA = pathlib.Path(__file__).parents[3] / "shared" / "data" / "roberta"
TEXTS = ["two cats, o'don  2015", "a  dog's café ☕", "Hello</s> world"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of 64 pixels and RoBERTa's vocabulary, without its processor."""
    size = {**checkpoints.SIZE, "vocabulary": 50_265}
    path = tmp_path_factory.mktemp("model") / "model"
    checkpoints.theirs(size=size).save_pretrained(path)
    return path


def processor(side=64, divisor=32, **kwargs):
    if not ROBERTA.is_dir():
        pytest.skip(f"RoBERTa's tokenizer files are not here: {ROBERTA}")
    size = {"shortest_edge": side}
    images = transformers.BridgeTowerImageProcessorPil(
        size=size, crop_size=size, size_divisor=divisor, **kwargs
    )
    tokenizer = transformers.RobertaTokenizer(
        str(ROBERTA / "vocab.json"), str(ROBERTA / "merges.txt")
    )
    return transformers.BridgeTowerProcessor(images, tokenizer)


def copied(folder, target):
    shutil.copytree(folder, target)
    return target


def test_features_equal_transformers(folder, tmp_path):
    path = copied(folder, tmp_path / "model")
    theirs = processor()
    theirs.save_pretrained(path)
    tokenizer, converter = read(path).processors
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), "uint8")
    for text in TEXTS[:2]:
        expected = theirs(image, text)
        ids = tokenizer(text)
        ids = ids[ids != tokenizer.pad_token_id]
        assert ids.tolist() == np.ravel(expected["input_ids"]).tolist()
        pixels = np.asarray(expected["pixel_values"])[0].transpose(1, 2, 0)
        # One grey level in 255, by which the two resize alike.
        assert difference(converter(image), pixels) <= 4 / 255 / 0.26


def test_processor_files_of_older_versions_are_read(folder, tmp_path):
    path = copied(folder, tmp_path / "model")
    theirs = processor(divisor=16)
    theirs.image_processor.save_pretrained(path)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(ROBERTA / name, path)
    (path / "processor_config.json").unlink(missing_ok=True)
    tokenizer, converter = read(path).processors
    assert (converter.mode, converter.size_divisor) == ("hf", 16)
    assert tokenizer.vocabulary_size() == 50_265


def test_processors_round_trip(folder, tmp_path):
    path = copied(folder, tmp_path / "model")
    processor().save_pretrained(path)
    tokenizer, converter = read(path).processors
    tokenizer.sequence_length = 11
    (tmp_path / "back").mkdir()
    processors.write(tmp_path / "back", tokenizer, converter)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(path / name, tmp_path / "back")
    assert read(tmp_path / "back").processors[0].sequence_length == 11
    theirs = transformers.BridgeTowerProcessor.from_pretrained(
        tmp_path / "back"
    )
    for text in TEXTS[:2]:
        ids = tokenizer(text)
        ids = ids[ids != tokenizer.pad_token_id]
        assert theirs.tokenizer(text)["input_ids"] == ids.tolist()
    assert theirs.image_processor.size == {"shortest_edge": 64}
    assert theirs.image_processor.size_divisor == 32


def test_white_space_before_a_mask_belongs_to_it(tmp_path):
    ours = tokenizer()
    processors.write(tmp_path, ours, None)
    theirs = transformers.RobertaTokenizer.from_pretrained(tmp_path)
    for text in ("is it <mask>?", "a <mask> or <mask> thing", "x<mask>"):
        ids = ours.encode_with_masks(text)["token_ids"]
        ids = ids[ids != ours.pad_token_id]
        assert theirs(text)["input_ids"] == ids.tolist()


def test_other_statistics_are_written(tmp_path):
    converter = kbt.BridgeTowerImageConverter(
        64, "hf", mean=(0.1, 0.5, 0.7), std=(0.5, 0.6, 0.3)
    )
    processors.write(tmp_path, None, converter)
    theirs = transformers.BridgeTowerImageProcessorPil.from_pretrained(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), "uint8")
    pixels = np.asarray(theirs(image)["pixel_values"])[0].transpose(1, 2, 0)
    assert difference(converter(image), pixels) <= 4 / 255 / 0.3


@pytest.mark.parametrize(
    ("values", "mean", "std"),
    [
        (
            {"image_mean": [0.1, 0.5, 0.7], "image_std": [0.5, 0.6, 0.3]},
            (0.1, 0.5, 0.7),
            (0.5, 0.6, 0.3),
        ),
        ({"image_mean": 0.5, "image_std": 0.25}, (0.5,) * 3, (0.25,) * 3),
        ({"image_mean": 0, "image_std": 1}, (0.0,) * 3, (1.0,) * 3),
        ({"do_normalize": False}, (0.0,) * 3, (1.0,) * 3),
        ({}, MEAN, STD),
    ],
)
def test_statistics_of_the_file_are_read(values, mean, std, folder, tmp_path):
    path = copied(folder, tmp_path / "model")
    size = {"shortest_edge": 64}
    config = {"size": size, "crop_size": size, **values}
    (path / "preprocessor_config.json").write_text(json.dumps(config))
    _, converter = read(path).processors
    assert (converter.mean, converter.std) == (mean, std)
    theirs = transformers.BridgeTowerImageProcessorPil.from_pretrained(path)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), "uint8")
    expected = np.asarray(theirs(image)["pixel_values"])[0].transpose(1, 2, 0)
    np.testing.assert_allclose(converter(image), expected, atol=2e-6)


def test_statistics_go_to_a_preset_and_back(tmp_path):
    path = tmp_path / "model"
    size = {**checkpoints.SIZE, "vocabulary": 300}
    checkpoints.theirs(size=size).save_pretrained(path)
    statistics = dict(image_mean=[0.1, 0.5, 0.7], image_std=[0.5, 0.6, 0.3])
    images = transformers.BridgeTowerImageProcessorPil(
        size={"shortest_edge": 64},
        crop_size={"shortest_edge": 64},
        **statistics,
    )
    images.save_pretrained(path)
    processors.write(path, tokenizer(), None)
    task = kbt.BridgeTowerRetrieval.from_preset(path, random_heads=True)
    task.save_to_preset(tmp_path / "preset")
    task = kbt.BridgeTowerRetrieval.from_preset(tmp_path / "preset")
    converter = task.preprocessor.image_converter
    assert list(converter.mean) == statistics["image_mean"]
    assert list(converter.std) == statistics["image_std"]
    task.export_to_transformers(tmp_path / "back")
    written = json.loads(
        (tmp_path / "back" / "preprocessor_config.json").read_text()
    )
    assert {name: written[name] for name in statistics} == statistics


@pytest.mark.parametrize("mode", ["squash", "crop"])
def test_export_warns_of_other_modes(mode, tmp_path):
    converter = kbt.BridgeTowerImageConverter(64, mode)
    with pytest.warns(UserWarning, match=f"mode='{mode}'.*image_mode='{mode}'"):
        processors.write(tmp_path, None, converter)


def test_folder_without_tokenizer_opens(folder):
    tokenizer, converter = read(folder).processors
    assert tokenizer is None
    assert (converter.image_size, converter.mode) == (64, "hf")


@pytest.mark.parametrize(
    "values",
    [
        {"size": {"shortest_edge": 288}},
        {"crop_size": 32},
        {"image_mean": [0.5, 0.5]},
        {"image_mean": [0.5, float("nan"), 0.5]},
        {"image_mean": ["0.5", 0.5, 0.5]},
        {"image_mean": 10**400},
        {"image_std": [0.5, 0, 0.5]},
        {"image_std": True},
        {"image_std": None},
        {"do_rescale": False},
        {"resample": 2},
        {"do_center_crop": False},
        {"size_divisor": 0},
        {"rescale_factor": "much"},
        {"rescale_factor": 10**400},
        {"image_size": 32},
        {"max_text_len": 2},
        {"max_text_len": 10.0},
        {"image_processor_type": "CLIPImageProcessor"},
    ],
)
def test_other_image_processors_are_refused(values, folder, tmp_path):
    path = copied(folder, tmp_path / "model")
    size = {"shortest_edge": 64}
    config = {"size": size, "crop_size": size, **values}
    (path / "preprocessor_config.json").write_text(json.dumps(config))
    with pytest.raises(ConversionError, match=next(iter(values))):
        read(path)


def test_vocabulary_larger_than_model_is_rejected(folder, tmp_path):
    small = tmp_path / "model"
    checkpoints.theirs().save_pretrained(small)
    processor().save_pretrained(small)
    with pytest.raises(ConversionError, match="50265 tokens, 100 rows"):
        read(small)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"model": {"type": "WordPiece"}}']
)
def test_damaged_tokenizers(text, folder, tmp_path):
    path = copied(folder, tmp_path / "model")
    (path / "tokenizer.json").write_text(text)
    with pytest.raises(ConversionError, match="tokenizer.json"):
        read(path)
