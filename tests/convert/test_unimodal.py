"""Encoders of transformers, OpenAI and KerasHub, and KerasHub's tokenizers."""

import functools

import builders
import keras_hub.models as hub
import numpy as np
import pytest
import text_folders
import torch
from builders import LONG_ELSEWHERE
from builders import array
from builders import difference
from peers import bert
from peers import clip
from peers import vit

import keras_bridgetower as kbt
from keras_bridgetower.convert import unimodal
from keras_bridgetower.encoders.registry import get_entry
from keras_bridgetower.models.positions import resize_positions
from keras_bridgetower.presets.errors import ConversionError

pytestmark = [
    LONG_ELSEWHERE,
    # KerasHub leaves its files open.
    pytest.mark.filterwarnings(
        "ignore::pytest.PytestUnraisableExceptionWarning"
    ),
]


# Names of OpenAI's CLIP, by those of transformers.
OPENAI = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "pre_layrnorm": "ln_pre",
    "post_layernorm": "ln_post",
    "encoder.layers": "transformer.resblocks",
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def test_openai_state_dict(tmp_path):
    def open_file(state, **kwargs):
        torch.save(state, tmp_path / "clip.pt")
        return unimodal.image_encoder(tmp_path / "clip.pt", **kwargs)

    model = clip()
    state, source = {}, model.vision_model.state_dict()
    for name, value in source.items():
        if "q_proj" in name:
            parts = [source[name.replace("q_proj", f"{p}_proj")] for p in "qkv"]
            value = torch.cat(parts)
            name = name.replace("self_attn.q_proj.", "attn.in_proj_")
        for theirs, openai in OPENAI.items():
            name = name.replace(theirs, openai)
        if "self_attn" not in name and "position_ids" not in name:
            state[f"visual.{name}"] = value
    with pytest.raises(ConversionError, match="visual.*another model"):
        open_file({"visual.conv1.weight": torch.ones(8, 3, 4, 4)})
    for name in ("visual.proj", "logit_scale", "token_embedding.weight"):
        state[name] = torch.ones(32, 8)
    model.save_pretrained(tmp_path / "model")
    a = unimodal.image_encoder(tmp_path / "model")
    b = open_file(state, image_size=48)
    # One head for 64 of width is OpenAI's rule; only weights are compared.
    for ours, other in zip(b.weights, a.weights, strict=True):
        if "position" not in ours.path:
            got, expected = (array(w).ravel() for w in (ours, other))
            assert difference(got, expected) == 0, ours.path
    table = source["embeddings.position_embedding.weight"].numpy()
    expected = resize_positions(table, 37)
    position = [w for w in b.weights if "position_embedding" in w.path]
    assert difference(array(position[0]), expected) == 0


def test_kerashub_preset_is_resized(tmp_path):
    encoder = builders.clip()
    get_entry(encoder).correct(encoder)
    encoder.save_to_preset(str(tmp_path / "preset"))
    resized = unimodal.image_encoder(tmp_path / "preset", image_size=64)
    assert resized.image_shape == (64, 64, 3)
    same = unimodal.image_encoder(tmp_path / "preset")
    images = {"images": np.ones((1, 32, 32, 3), "float32")}
    assert difference(array(same(images)), array(encoder(images))) == 0


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Presets of KerasHub without their weights, and transformers' folders."""
    root = tmp_path_factory.mktemp("encoders")
    gpt2 = hub.GPT2Backbone(20, 1, 2, 16, 32)
    made = {"vit": builders.vit(), "bert": builders.bert(), "gpt2": gpt2}
    for name, encoder in made.items():
        encoder.save_to_preset(root / f"hub_{name}")
        (root / f"hub_{name}" / "model.weights.h5").unlink()
    vit().save_pretrained(root / "vit")
    bert().save_pretrained(root / "bert")
    text_folders.dump(root / "unknown", "config.json", {"model_type": "gpt2"})
    return root


IMAGES, TEXT = unimodal.image_encoder, unimodal.text_encoder
OF_60 = functools.partial(IMAGES, image_size=60)


@pytest.mark.parametrize(
    "name, read, error, message",
    [
        ("hub_bert", IMAGES, ConversionError, "image encoders.*BertBackbone"),
        ("hub_vit", TEXT, ConversionError, "text encoders.*ViTBackbone"),
        ("hub_gpt2", TEXT, TypeError, "GPT2Backbone"),
        ("hub_vit", OF_60, ValueError, "`image_size`.*multiple of .*8.*60"),
        ("vit", OF_60, ValueError, "`image_size`.*multiple of .*8.*60"),
        ("bert", IMAGES, ConversionError, "of type .*vit.*model_type='bert'"),
        ("unknown", TEXT, ConversionError, "of type .*model_type='gpt2'"),
    ],
)
def test_one_error_before_the_weights(
    name, read, error, message, folders, monkeypatch
):
    def refuse(*args):
        raise AssertionError("weights are read")

    monkeypatch.setattr(unimodal, "load_weights", refuse)
    with pytest.raises(error, match=message):
        read(folders / name)


def test_two_encoders_in_the_wrong_order(folders):
    """The kind comes before pixels and tokens that are missing too."""
    for part, found in zip(unimodal.PARTS, ("vit", "bert"), strict=True):
        with pytest.raises(ConversionError, match=f"model_type='{found}'"):
            unimodal.open_encoders(
                folders / "bert", folders / "vit", parts=(part,)
            )


SIZES = dict(num_layers=1, num_heads=2, hidden_dim=16, intermediate_dim=32)
FUSION = dict(hidden_dim=16, num_heads=2, num_layers=1)
TEXTS = ["The red dog, it's in Park 12!", "hello two people; A CAT.", "a-b"]


def of_pieces(folder):
    (path,) = folder.glob("*.model")
    return {"proto": str(path)}


def of_pairs(folder):
    names = {"vocabulary": "vocab.json", "merges": "merges.txt"}
    return {key: str(folder / name) for key, name in names.items()}


def of_words(folder):
    return {"vocabulary": str(folder / "vocab.txt"), "lowercase": True}


OF_WORDS = (text_folders.word_pieces, of_words)
# Name of KerasHub's classes, what writes files, the arguments of a tokenizer.
ENCODERS = {
    "Roberta": (text_folders.byte_pairs, of_pairs),
    "XLMRoberta": (text_folders.xlm_roberta, of_pieces),
    **dict.fromkeys(("Bert", "DistilBert", "Electra"), OF_WORDS),
    "DebertaV3": (text_folders.deberta, of_pieces),
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
