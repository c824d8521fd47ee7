"""WordPiece against transformers, in presets, and hidden by whole words."""

import numpy as np
from builders import FASTEST
from builders import backbone
from builders import bert
from builders import clip
from builders import eager
from builders import moved
from builders import raw

import keras_bridgetower as kbt
from keras_bridgetower.preprocessing.masking import WholeWordMasking

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "is", "it", "red"]
WORDS += ["blue", "or", "what", "play", "##ing", "##s", "col", "##our", "?"]
WORDS += ["!", "[", "]", "<", ">", "mask", "sep", "a", "##b", "cafe", "中"]
STRINGS = (
    "Is it red?",
    "playing plays PLAY a ab abb",
    "what colour\tis  it?!  ",
    "café CAFÉ cafe\u0301",
    "中a中",
    "\u200bred\u00a0blue\ufffd unknownword",
    "x" * 200,
)
pytestmark = FASTEST


def tokenizer(sequence_length=16, **kwargs):
    return kbt.BridgeTowerBertTokenizer(
        WORDS, sequence_length=sequence_length, **kwargs
    )


def test_ids_are_those_of_transformers(tmp_path):
    """Cased; tests/convert compares others, which are lowercase."""
    import transformers

    ours = tokenizer(300, lowercase=False)
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join(WORDS) + "\n")
    theirs = transformers.BertTokenizerFast(str(file), do_lower_case=False)
    for text in STRINGS:
        expected = theirs(text)["input_ids"]
        made = ours.encode(text)
        count = made["padding_mask"].sum()
        assert made["token_ids"][:count].tolist() == expected, text
    assert (ours.pad_token_id, ours.mask_token_id) == (0, 4)


def test_attributes_are_those_before_a_vocabulary(tmp_path):
    loaded = tokenizer()
    empty = kbt.BridgeTowerBertTokenizer(sequence_length=16)
    assert {*dir(loaded)} == {*dir(empty)}
    loaded.save_assets(tmp_path)
    empty.load_assets(tmp_path)
    assert empty.masking() == loaded.masking()
    assert empty.masking().continuation_ids == (12, 13, 15, 25)


def masked():
    converter = kbt.BridgeTowerImageConverter(32)
    return kbt.BridgeTowerMaskedLMPreprocessor(tokenizer(), converter, rate=0.4)


def test_whole_words_are_hidden():
    preprocessor = masked()
    assert isinstance(preprocessor.tokenizer.masking(), WholeWordMasking)
    x = raw(1)[0] | {"text": ["playing plays colour abb red"]}
    hidden = set()
    for step in range(30):
        made, labels = preprocessor({**x, "step": step})
        places = made["mask_positions"][0][labels[0] >= 0].tolist()
        hidden.update(places)
        # play ##ing | play ##s | col ##our | a ##b ##b | red, after [CLS].
        for word in ((1, 2), (3, 4), (5, 6), (7, 8, 9), (10,)):
            assert len(set(word) & set(places)) in (0, len(word))
    assert hidden == set(range(1, 11))


def test_bert_trains_fills_and_is_a_preset(tmp_path):
    small = backbone(clip(layers=1), bert(layers=1), num_layers=1)
    model = eager(kbt.BridgeTowerMaskedLM(small, masked()))
    changed = moved(model, lambda: model.fit(raw(4)[0], verbose=0))
    assert changed
    image = raw(1)[0]["images"][0]
    (expected,), text = model.fill_mask(image, "is it <mask>?", top_k=3)
    model.save_to_preset(tmp_path / "preset")
    copy = kbt.BridgeTowerMaskedLM.from_preset(tmp_path / "preset")
    assert type(copy.preprocessor.tokenizer) is kbt.BridgeTowerBertTokenizer
    (found,), again = copy.fill_mask(image, "is it <mask>?", top_k=3)
    assert again == text
    assert np.allclose([p for _, p in found], [p for _, p in expected])
    vqa = kbt.BridgeTowerVQA.from_preset(
        tmp_path / "preset", answers=["yes", "no"], random_heads=True
    )
    assert vqa.answer(image, "is it red?")[0][0] in ("yes", "no")
