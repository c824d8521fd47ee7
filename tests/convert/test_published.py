"""The published repositories open, and compute what transformers does.

Folders in the shapes of the repositories are made, with small sizes. What
stands here was read off the repositories: which files there are, which keys a
file has, and which it leaves out.
"""

import collections
import dataclasses
import functools
import hashlib
import json
import pathlib
import shutil
import sys
import warnings

import check_published
import checkpoints
import copies
import hub_server
import keras
import numpy as np
import peer
import pytest
import text_folders
import torch
import transformers
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import difference
from huggingface_hub import constants
from peers import roberta
from peers import vit
from PIL import Image

import keras_bridgetower as kbt
from keras_bridgetower.convert import configurations
from keras_bridgetower.convert import transformers_folder
from keras_bridgetower.convert import unimodal
from keras_bridgetower.convert.tensors import Tensors
from keras_bridgetower.presets.errors import ConversionError
from keras_bridgetower.presets.hub import DOWNLOADS

pytestmark = [LONG_ELSEWHERE, pytest.mark.usefixtures("loopback_only")]
WIDTH, LAYERS, FUSED, HEADS = 64, 3, 2, 4
# Those of the configurations; one saved again has the default, and omits it.
ROWS, DEFAULT_ROWS = 60, 50_265
# Patch and side; 70 leaves 6 pixels over multiples of 32, as 294 does.
BASE, LARGE = (16, 64), (14, 70)
TEXT_LENGTH = 20
MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]


@dataclasses.dataclass(frozen=True)
class Repository:
    """A published repository: its size, heads, and whether it is a copy."""

    size: tuple
    heads: tuple
    copy: bool = False

    @property
    def rows(self):
        return DEFAULT_ROWS if self.copy else ROWS


REPOSITORIES = {
    "BridgeTower/bridgetower-base": Repository(BASE, ()),
    "BridgeTower/bridgetower-base-itm-mlm": Repository(BASE, ("itm", "mlm")),
    "BridgeTower/bridgetower-large-itm-mlm": Repository(LARGE, ("itm", "mlm")),
    "BridgeTower/bridgetower-large-itm-mlm-itc": Repository(
        LARGE, ("itm", "mlm", "itc")
    ),
    "edlee123/bridgetower": Repository(LARGE, ("itc",), copy=True),
    "BridgeTower/bridgetower-large-itm-mlm-gaudi": Repository(
        LARGE, ("itm", "mlm")
    ),
}
TEXT = dict(
    vocab_size=ROWS,
    hidden_size=WIDTH,
    num_hidden_layers=LAYERS,
    num_attention_heads=HEADS,
    intermediate_size=4 * WIDTH,
    hidden_act="gelu",
    max_position_embeddings=514,
    type_vocab_size=1,
    layer_norm_eps=1e-05,
    pad_token_id=1,
)
SHARED = dict(
    share_cross_modal_transformer_layers=True,
    drop_rate=0.1,
    head_hidden_scale=2,
    hidden_act="gelu",
    hidden_size=WIDTH,
    layer_norm_eps=1e-05,
    share_link_tower_layers=False,
    link_tower_type="add",
    num_attention_heads=HEADS,
    num_hidden_layers=FUSED,
    tie_word_embeddings=False,
)
CONTRASTIVE = {"contrastive_hidden_size": 24, "logit_scale_init_value": 2.6592}
# Left out by files that were saved again, as they equal the defaults.
DEFAULTS = {"vocab_size", "max_position_embeddings", "type_vocab_size"}
DEFAULTS |= {"hidden_act", "layer_norm_eps", "pad_token_id"}


def config(repository):
    """The values of a config.json: no model type but in copies."""
    patch, side = repository.size
    vision = dict(hidden_size=WIDTH, num_hidden_layers=LAYERS)
    vision |= dict(patch_size=patch, image_size=side)
    values = {**SHARED, "text_config": dict(TEXT), "vision_config": vision}
    if "itc" in repository.heads:
        values |= CONTRASTIVE
    if repository.copy:
        for name in DEFAULTS:
            del values["text_config"][name]
        classes = ["BridgeTowerForContrastiveLearning"]
        return {**values, "architectures": classes, "model_type": "bridgetower"}
    # The oldest files have the authors' name.
    last = "vit_remove_last" if patch == BASE[0] else "remove_last_layer"
    vision |= {"share_layernorm": True, last: False}
    return {**values, "text_config_dict": None, "vision_config_dict": None}


def image_processor(repository):
    """The values of a preprocessor_config.json."""
    side = repository.size[1]
    values = {"max_text_len": TEXT_LENGTH, "vocab_size": repository.rows}
    if repository.copy:
        steps = ("center_crop", "normalize", "pad", "rescale", "resize")
        return {
            **values,
            **{f"do_{step}": True for step in steps},
            "crop_size": None,
            "image_mean": MEAN,
            "image_processor_type": "BridgeTowerImageProcessor",
            "image_std": STD,
            "resample": 3,
            "rescale_factor": 0.00392156862745098,
            "size": {"shortest_edge": side},
            "size_divisor": 32,
        }
    if repository.size == BASE:
        return {**values, "image_size": side, "model_type": "bridgetower"}
    return {**values, "size": side}


def models(repository):
    """Random models of transformers that share a backbone, by head."""
    made = transformers.BridgeTowerConfig.from_dict(config(repository))
    matching = transformers.BridgeTowerForImageAndTextRetrieval(made)
    matching = peer.randomise(matching.eval())
    return {
        head: checkpoints.other_head(head, matching)
        for head in checkpoints.HEADS
    }


def save(folder, repository, theirs):
    """Write a folder in the shape of a repository.

    Args:
        folder: `pathlib.Path`.
        repository: a `Repository`.
        theirs: models as `models` returns them, of its size.
    """
    folder.mkdir(parents=True)
    named = [theirs[head] for head in repository.heads]
    state = collections.OrderedDict()
    # Without heads it is the state of the bare model, without its prefix.
    prefix = "bridgetower." if named else ""
    for model in named or [theirs["itm"].bridgetower]:
        state |= model.state_dict()
        state._metadata = model.state_dict()._metadata
    ids = f"{prefix}text_model.embeddings.position_ids"
    state[ids] = torch.arange(514)[None]
    torch.save(state, folder / "pytorch_model.bin")
    indent = None if repository.size == BASE else 4
    text_folders.dump(folder, "config.json", config(repository), indent)
    text_folders.dump(
        folder, "preprocessor_config.json", image_processor(repository)
    )
    form = "published" if indent is None else "published, indented"
    if repository.copy:
        form = "saved by transformers 4"
    text_folders.FORMS[form](folder, *text_folders.few_words())
    (folder / "README.md").write_text("# BridgeTower\n")


NAMES = list(REPOSITORIES)


class Hub:
    """All repositories as folders and in a cache of the hub."""

    def __init__(self, root):
        self.root, self.made, self.expected = root, {}, {}

    def folder(self, name):
        repository = REPOSITORIES[name]
        kind = (repository.size, repository.rows)
        if kind not in self.made:
            found = models(repository)
            size = dict(side=repository.size[1], vocabulary=ROWS)
            self.made[kind] = found
            self.expected[kind] = checkpoints.run_theirs(found, size)
        folder = self.root / name.replace("/", "_")
        if not folder.exists():
            save(folder, repository, self.made[kind])
            commit = hashlib.sha1(name.encode()).hexdigest()
            files = {path.name: path.read_bytes() for path in folder.iterdir()}
            hub_server.fill(self.root / "hub", name, commit, files, ["main"])
        return folder, self.expected[kind], self.made[kind]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_HOME", str(root / "home"))
        patch.setattr(constants, "HF_HUB_CACHE", str(root / "hub"))
        yield Hub(root)


def opened(task, preset):
    """A task or the backbone of a preset, and what was warned of."""
    labels = {"answers": ["yes", "no", "two"]} if task == "VQA" else {}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        cls = getattr(kbt, f"BridgeTower{task}")
        return cls.from_preset(preset, **labels), [str(w.message) for w in told]


@pytest.mark.parametrize(
    "task, head, name, preset",
    [
        ("Backbone", None, NAMES[0], "bridgetower_base"),
        ("MaskedLM", "mlm", NAMES[1], None),
        ("Retrieval", "itm", NAMES[2], f"hf://{NAMES[2]}"),
        ("VQA", None, NAMES[3], None),
        ("Contrastive", "itc", NAMES[4], f"hf://{NAMES[4]}@main"),
    ],
)
def test_published_repositories_open(task, head, name, preset, hub):
    """By path and from the cache of the hub; each task, size and kind."""
    folder, expected, _ = hub.folder(name)
    model, told = opened(task, preset or folder)
    assert any("Newly initialized" in text for text in told) == (task == "VQA")
    heads = {head: model.heads[head]} if head else {}
    size = dict(side=REPOSITORIES[name].size[1], vocabulary=ROWS)
    ours = checkpoints.run_ours(getattr(model, "backbone", model), heads, size)
    found = checkpoints.differences(ours, {key: expected[key] for key in ours})
    assert max(found.values()) <= 1e-5, found


@pytest.mark.skipif(
    keras.config.backend() == "torch", reason="its backend needs torch"
)
def test_published_presets_open_without_torch(hub, monkeypatch):
    """The numbers of such files are compared above."""
    folder = hub.folder(NAMES[3])[0]
    monkeypatch.setitem(sys.modules, "torch", None)
    for task in ("MaskedLM", "Contrastive"):
        opened(task, folder)


PICTURE = np.random.default_rng(0).integers(0, 256, (96, 128, 3), "uint8")


def pixels(picture, side, divisor=32):
    """Return the normalized pixels of transformers 4, with a black edge."""
    height, width, _ = picture.shape
    scale = side / min(height, width)
    width, height = (
        int(n * scale + 0.5) // divisor * divisor for n in (width, height)
    )
    image = Image.fromarray(picture).resize((width, height), Image.BICUBIC)
    left, top = ((n - side) // 2 for n in (width, height))
    cut = np.asarray(image.crop((left, top, left + side, top + side)))
    return ((cut / 255 - MEAN) / STD).astype("float32")


@FASTEST
def test_raw_pictures_and_texts(hub):
    """The verb on a picture equals transformers on pixels of transformers 4."""
    folder, _, models = hub.folder(NAMES[3])
    side = REPOSITORIES[NAMES[3]].size[1]
    words, merges = text_folders.few_words()
    peer_tokenizer = transformers.RobertaTokenizer(
        vocab=words, merges=[tuple(m.split(" ")) for m in merges]
    )
    text = "two cat, a red dog?"
    ids = peer_tokenizer(text, return_tensors="pt")
    image = pixels(PICTURE, side).transpose(2, 0, 1)[None]
    with torch.no_grad():
        logits = models["itm"](**ids, pixel_values=torch.tensor(image)).logits
    task, _ = opened("Retrieval", folder)
    assert task.preprocessor.tokenizer.sequence_length == TEXT_LENGTH
    no_match, match = logits[0].tolist()
    assert difference(task.match_logits(PICTURE, text), match) <= 1e-5
    assert difference(task.score(PICTURE, text), match - no_match) <= 1e-5


def test_published_presets_are_described():
    """Counts of transformers' classes less what nothing reads."""
    base = 326_347_008 - 590_592 - 3 * 768 + 768
    large = 864_514_048 - 1_049_600 - 3 * 1024 + 1024
    with_heads = large + 52_573_273 + 4_098
    counts = {
        "bridgetower_base": base,
        "bridgetower_base_itm_mlm": base + 39_245_913 + 3_074,
        "bridgetower_large_itm_mlm": with_heads,
        "bridgetower_large_itm_mlm_gaudi": with_heads,
        "bridgetower_large_itm_mlm_itc": with_heads + 2_098_689,
    }
    for name, count in counts.items():
        preset = kbt.BridgeTowerVQA.presets[name]
        assert preset.parameters == count
        assert preset.handle.startswith("hf://BridgeTower/bridgetower-")
        assert preset.image_size == (288 if "base" in name else 294)


@FASTEST
def test_check_published_offline(tmp_path, monkeypatch, capsys):
    def offline(handle):
        raise ConnectionError("no route to host")

    monkeypatch.setitem(DOWNLOADS, "hf", offline)
    words = ["check_published", "--images", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match="would fetch hf://BridgeTower"):
        check_published.main()
    assert "000000039769.jpg" in capsys.readouterr().out


# --- Configurations: as published, saved again, and by hand ---

HUB = pathlib.Path(__file__).parents[3] / "shared" / "data" / "hub"


def published(name):
    folder = HUB / name.removeprefix("BridgeTower/").replace("/", "_")
    if not folder.is_dir():
        pytest.skip(f"The published configurations are not here: {HUB}")
    return folder, json.loads((folder / "config.json").read_text())


@functools.cache
def shapes(name):
    """The shapes of transformers' model for a published configuration."""
    config = transformers.BridgeTowerConfig.from_dict(published(name)[1])
    heads = REPOSITORIES[name].heads
    classes = [checkpoints.HEADS[head] for head in heads]
    made = {}
    with torch.device("meta"):
        for cls in classes or [transformers.BridgeTowerModel]:
            made |= cls(config).state_dict()
    return config, {k: tuple(v.shape) for k, v in made.items()}


AT_HAND = [name for name in NAMES if name != NAMES[1]]


@FASTEST
@pytest.mark.parametrize("name", AT_HAND)
def test_published_folders_at_full_size(name, monkeypatch):
    folder, _ = published(name)
    config, found = shapes(name)
    found = Tensors(folder, found, None)
    monkeypatch.setattr(
        transformers_folder, "weight_file", lambda folder: folder
    )
    monkeypatch.setattr(transformers_folder, "open_tensors", lambda path: found)
    checkpoint = transformers_folder.read(folder)
    assert tuple(checkpoint.heads) == REPOSITORIES[name].heads
    a, text = checkpoint.architecture, config.text_config
    heads = text.num_attention_heads
    assert (a.num_heads, a.text_heads) == (heads, heads)
    assert a.image_heads == config.vision_config.hidden_size // 64
    assert (a.num_layers, a.vocabulary_size) == (6, 50_265)
    assert (a.dropout, a.layer_norm_epsilon) == (0.1, 1e-5)
    tokenizer, converter = checkpoint.processors
    assert tokenizer is None
    assert converter.image_size == (288 if name == NAMES[0] else 294)
    assert (converter.mode, converter.size_divisor) == ("hf", 32)


@FASTEST
@pytest.mark.parametrize("name", [*AT_HAND, None])
def test_every_value_is_that_of_transformers(name):
    """Of the published files, and of one without any value."""
    config, found = transformers.BridgeTowerConfig(), configurations.DEFAULTS
    if name:
        folder, values = published(name)
        path = folder / "config.json"
        assert configurations.require_type(values, path, ["bridgetower"])
        config = config.from_dict(values)
        found = configurations.read_levels(values, path)
    levels = (config, config.text_config, config.vision_config)
    for mine, theirs in zip(found.values(), levels, strict=True):
        assert mine == {name: getattr(theirs, name) for name in mine}


PARTS = {"text_config": {"hidden_size": 64}, "vision_config": {"patch_size": 8}}


@FASTEST
@pytest.mark.parametrize(
    "values, refused",
    [
        ({**PARTS, "link_tower_shared": False, "model_type": None}, None),
        ({**PARTS, "architectures": ["BridgeTowerForMaskedLM"]}, None),
        ({**PARTS, "link_tower_type": "add", "model_type": "blip"}, "'blip'"),
        ({**PARTS, "architectures": ["CLIPModel"]}, "CLIPModel"),
        ({**PARTS, "model_type": 3}, "model_type=3"),
        ({**PARTS, "architectures": {"a": 1}}, "architectures="),
        (PARTS, "model_type=None"),
    ],
)
def test_bridgetower_configurations_are_recognized(values, refused):
    require = functools.partial(configurations.require_type, values)
    if refused:
        with pytest.raises(ConversionError, match=refused):
            require("config.json", ["bridgetower"])
    else:
        assert require("config.json", ["bridgetower"]) == "bridgetower"


@FASTEST
def test_older_names_and_places():
    levels = configurations.read_levels(
        {
            "link_tower_shared": True,
            "cross_modal_transform_shared": False,
            "text_config": None,
            "text_config_dict": {"hidden_size": 64},
            "vision_config_dict": None,
            "vision_config": {"vit_remove_last": True, "patch_size": 8},
            "head_hidden_scale": 2,
        },
        "config.json",
    )
    top, text, vision = levels.values()
    assert top["share_link_tower_layers"] is True
    assert top["share_cross_modal_transformer_layers"] is False
    assert (text["hidden_size"], text["vocab_size"]) == (64, 50_265)
    assert vision["remove_last_layer"] is True


@FASTEST
@pytest.mark.parametrize("make", [vit, roberta])
def test_encoders_without_a_model_type(make, tmp_path):
    make().save_pretrained(tmp_path / "named")
    shutil.copytree(tmp_path / "named", tmp_path / "bare")
    config = tmp_path / "bare" / "config.json"
    copies.edit(config, lambda values: values.pop("model_type"))
    read = unimodal.text_encoder if make is roberta else unimodal.image_encoder
    bare, named = read(tmp_path / "bare"), read(tmp_path / "named")
    assert bare.get_config() == {**named.get_config(), "name": bare.name}
    copies.edit(config, lambda values: values.pop("architectures"))
    with pytest.raises(ConversionError, match="model_type=None"):
        read(tmp_path / "bare")
