"""Tokenizer and image processor files, both ways."""

import json
import pathlib
import shutil

import checkpoints
import pytest
import transformers
from builders import LONG_ELSEWHERE
from builders import tokenizer

import keras_bridgetower as kbt
from keras_bridgetower.convert import processors
from keras_bridgetower.convert.transformers_folder import read
from keras_bridgetower.presets.errors import ConversionError

pytestmark = LONG_ELSEWHERE

ROBERTA = pathlib.Path(__file__).parents[3] / "shared" / "data" / "roberta"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of 64 pixels and RoBERTa's vocabulary, without its processor."""
    size = {**checkpoints.SIZE, "vocabulary": 50_265}
    path = tmp_path_factory.mktemp("model") / "model"
    checkpoints.theirs(size=size).save_pretrained(path)
    return path


def processor(divisor):
    if not ROBERTA.is_dir():
        pytest.skip(f"RoBERTa's tokenizer files are not here: {ROBERTA}")
    size = {"shortest_edge": 64}
    images = transformers.BridgeTowerImageProcessorPil(
        size=size, crop_size=size, size_divisor=divisor
    )
    tokenizer = transformers.RobertaTokenizer(
        str(ROBERTA / "vocab.json"), str(ROBERTA / "merges.txt")
    )
    return transformers.BridgeTowerProcessor(images, tokenizer)


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "model")


def configure(path, **values):
    """Write the file of an image processor."""
    size = {"shortest_edge": 64}
    config = {"size": size, "crop_size": size, **values}
    (path / "preprocessor_config.json").write_text(json.dumps(config))


def test_processors_round_trip(copied, tmp_path):
    processor(divisor=16).save_pretrained(copied)
    tokenizer, converter = read(copied).processors
    assert (converter.mode, converter.size_divisor) == ("hf", 16)
    assert tokenizer.vocabulary_size() == 50_265
    tokenizer.sequence_length = 11
    back = tmp_path / "back"
    back.mkdir()
    processors.write(back, tokenizer, converter)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(copied / name, back)
    assert read(back).processors[0].sequence_length == 11
    theirs = transformers.BridgeTowerProcessor.from_pretrained(back)
    for text in ("two cats, o'don  2015", "a  dog's café ☕"):
        ids = tokenizer(text)
        ids = ids[ids != tokenizer.pad_token_id].tolist()
        assert theirs.tokenizer(text)["input_ids"] == ids
    assert theirs.image_processor.size == {"shortest_edge": 64}
    assert theirs.image_processor.size_divisor == 16


def test_white_space_before_a_mask_belongs_to_it(tmp_path):
    ours = tokenizer()
    processors.write(tmp_path, ours, None)
    theirs = transformers.RobertaTokenizer.from_pretrained(tmp_path)
    for text in ("is it <mask>?", "a <mask> or <mask> thing", "x<mask>"):
        ids = ours.encode_with_masks(text)["token_ids"]
        ids = ids[ids != ours.pad_token_id]
        assert theirs(text)["input_ids"] == ids.tolist()


def test_statistics_go_to_a_preset_and_back(tmp_path):
    path = tmp_path / "model"
    size = {**checkpoints.SIZE, "vocabulary": 300, "layers": 2, "fused": 1}
    checkpoints.theirs(size=size).save_pretrained(path)
    statistics = dict(image_mean=[0.1, 0.5, 0.7], image_std=[0.5, 0.6, 0.3])
    configure(path, **statistics)
    processors.write(path, tokenizer(), None)
    task = kbt.BridgeTowerRetrieval.from_preset(path, random_heads=True)
    task.save_to_preset(tmp_path / "preset")
    task = kbt.BridgeTowerRetrieval.from_preset(tmp_path / "preset")
    converter = task.preprocessor.image_converter
    assert list(converter.mean) == statistics["image_mean"]
    assert list(converter.std) == statistics["image_std"]
    task.export_to_transformers(tmp_path / "back")
    file = tmp_path / "back" / "preprocessor_config.json"
    written = json.loads(file.read_text())
    assert {name: written[name] for name in statistics} == statistics
    # transformers' class cannot have a tokenizer of another class.
    task.preprocessor.tokenizer = kbt.BridgeTowerJsonTokenizer(
        {"model": {"vocab": {f"<{i}>": i for i in range(4)}, "merges": []}},
        special_tokens=[f"<{i}>" for i in range(4)],
    )
    with pytest.raises(
        ConversionError, match="tokenizer='BridgeTowerJsonTokenizer'"
    ):
        task.export_to_transformers(tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "values, found",
    [
        ({"mode": "crop"}, "mode='crop'.*image_mode='crop'"),
        ({"mode": "hf", "resample": "lanczos"}, "no place for.*'lanczos'"),
    ],
)
def test_export_warns_of_other_pixels(values, found, tmp_path):
    converter = kbt.BridgeTowerImageConverter(64, **values)
    with pytest.warns(UserWarning, match=found):
        processors.write(tmp_path, None, converter)


@pytest.mark.parametrize(
    "values",
    [
        {"size": {"shortest_edge": 288}},
        {"max_text_len": "much"},
        {"image_processor_type": "CLIPImageProcessor"},
    ],
)
def test_other_image_processors_are_refused(values, copied):
    """Others are in `test_what_makes_no_squares_is_refused`."""
    configure(copied, **values)
    with pytest.raises(ConversionError, match="preprocessor_config.json"):
        read(copied)


def test_vocabulary_larger_than_model_is_rejected(tmp_path):
    checkpoints.theirs().save_pretrained(tmp_path)
    processors.write(tmp_path, tokenizer(), None)
    with pytest.raises(ConversionError, match="261 tokens, 100 rows"):
        read(tmp_path)
