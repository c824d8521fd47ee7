"""Tokenizers of KerasHub presets, against KerasHub's own."""

import keras_hub.models as hub
import numpy as np
import pytest
import text_folders
from builders import LONG_ELSEWHERE

import keras_bridgetower as kbt
from keras_bridgetower.convert import unimodal
from keras_bridgetower.presets.errors import ConversionError

pytestmark = [
    LONG_ELSEWHERE,
    # KerasHub leaves its files open.
    pytest.mark.filterwarnings(
        "ignore::pytest.PytestUnraisableExceptionWarning"
    ),
]

SIZES = dict(num_layers=1, num_heads=2, hidden_dim=16, intermediate_dim=32)
FUSION = dict(hidden_dim=16, num_heads=2, num_layers=1)
TEXTS = ["The red dog, it's in Park 12!", "hello two people; A CAT.", "a-b"]


def of_pieces(name, **values):
    return lambda folder: {"proto": str(folder / name), **values}


def of_pairs(folder):
    names = {"vocabulary": "vocab.json", "merges": "merges.txt"}
    return {key: str(folder / name) for key, name in names.items()}


def of_words(folder):
    return {"vocabulary": str(folder / "vocab.txt"), "lowercase": True}


# Name of KerasHub's classes, what writes files, the arguments of a tokenizer.
ENCODERS = {
    "Roberta": (text_folders.byte_pairs, of_pairs),
    "XLMRoberta": (
        text_folders.xlm_roberta,
        of_pieces("sentencepiece.bpe.model"),
    ),
    "Bert": (text_folders.word_pieces, of_words),
    "DistilBert": (text_folders.word_pieces, of_words),
    "Electra": (text_folders.word_pieces, of_words),
    "DebertaV3": (text_folders.deberta, of_pieces("spm.model")),
}


def preset(root, name, vocabulary=2000, tokenizer=True):
    """Write a preset of a text encoder; return it and its tokenizer."""
    write, arguments = ENCODERS[name]
    write(root / "files")
    made = getattr(hub, f"{name}Tokenizer")(**arguments(root / "files"))
    own = {"embedding_dim": 16} if name == "Electra" else {}
    rows = "vocab_size" if name == "Electra" else "vocabulary_size"
    encoder = getattr(hub, f"{name}Backbone")(
        **{rows: vocabulary}, max_sequence_length=64, **SIZES, **own
    )
    encoder.save_to_preset(root / "preset")
    if tokenizer:
        made.save_to_preset(root / "preset")
    return root / "preset", made


@pytest.mark.parametrize("name", ENCODERS)
def test_ids_are_those_of_keras_hub(name, tmp_path):
    folder, theirs = preset(tmp_path, name)
    ours = unimodal.tokenizer(folder)
    assert ours.sequence_length == 50
    assert ours.has_segments == (name in ("Bert", "Electra"))
    for text in TEXTS:
        expected = np.asarray(theirs(text)).tolist()
        assert ours.token_lists([text]) == [expected]
    ids = ours.encode(TEXTS[0])["token_ids"]
    start = getattr(theirs, "start_token_id", None)
    assert ids[0] == (theirs.cls_token_id if start is None else start)
    assert ids[-1] == theirs.pad_token_id
    with pytest.raises(ValueError, match="from 1 to 64"):
        unimodal.tokenizer(folder, 65)


@pytest.mark.parametrize(
    "values, message",
    [({"vocabulary": 300}, "300 in the encoder"), ({"tokenizer": False}, "")],
)
def test_a_preset_without_its_tokenizer(values, message, tmp_path):
    folder, theirs = preset(tmp_path, "Bert", **values)
    with pytest.raises(ConversionError, match="`preprocessor`") as error:
        unimodal.tokenizer(folder)
    assert message in str(error.value)
    image = tmp_path / "image"
    hub.ViTBackbone((32, 32, 3), 8, 1, 2, 16, mlp_dim=32).save_to_preset(image)
    own = kbt.BridgeTowerVQAPreprocessor(
        kbt.BridgeTowerBertTokenizer(theirs.get_vocabulary()[:300]),
        kbt.BridgeTowerImageConverter(32),
        features=("images", "token_ids", "padding_mask", "segment_ids"),
        answers=["a", "b"],
    )
    values = dict(answers=["a", "b"], preprocessor=own, **FUSION)
    vqa = kbt.BridgeTowerVQA.from_encoders(image, folder, **values)
    assert vqa.preprocessor is own
    with pytest.raises(TypeError, match="`sequence_length`.*`preprocessor`"):
        kbt.BridgeTowerVQA.from_encoders(
            image, folder, sequence_length=9, **values
        )
