"""The published repositories open, and compute what transformers does."""

import hashlib
import sys
import warnings

import checkpoints
import hub_server
import keras
import numpy as np
import peer
import published
import pytest
import tokenizer_files
import torch
import transformers
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import difference
from builders import run
from huggingface_hub import constants
from PIL import Image

import keras_bridgetower as kbt

pytestmark = [LONG_ELSEWHERE, pytest.mark.usefixtures("loopback_only")]

NAMES = list(published.REPOSITORIES)
TASKS = {
    "Backbone": None,
    "Retrieval": "itm",
    "MaskedLM": "mlm",
    "Contrastive": "itc",
    "VQA": None,
}
POSITIONS = np.array([[1, 3, 4], [2, 5, 0]], "int32")


class Hub:
    """All repositories as folders and in a cache of the hub."""

    def __init__(self, root):
        self.root, self.made, self.expected = root, {}, {}

    def folder(self, name):
        repository = published.REPOSITORIES[name]
        kind = (repository.size, repository.rows)
        if kind not in self.made:
            models = published.models(repository)
            size = dict(side=repository.size[1], vocabulary=published.ROWS)
            self.made[kind] = models
            self.expected[kind] = checkpoints.run_theirs(models, size)
        folder = self.root / name.replace("/", "_")
        if not folder.exists():
            published.save(folder, repository, self.made[kind])
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


def is_new(task, name):
    """Return True if a repository has no head for a task."""
    return TASKS[task] not in published.REPOSITORIES[name].heads


def features_of(task, name):
    side = published.REPOSITORIES[name].size[1]
    made, _ = peer.inputs(dict(side=side, vocabulary=published.ROWS))
    if task == "MaskedLM" and not is_new(task, name):
        made["mask_positions"] = POSITIONS
    return made


def check(task, name, preset, hub):
    """Open a repository in one way, and compare with transformers."""
    _, expected, _ = hub.folder(name)
    model, told = opened(task, preset)
    new, features = is_new(task, name), features_of(task, name)
    random = any("Newly initialized" in text for text in told)
    assert random == (new and task != "Backbone")
    if new:
        # There is nothing to compare but the backbone.
        found = run(getattr(model, "backbone", model), features)
        kept = features["padding_mask"] == 1
        found["text"] = found["text"][kept]
        for part in ("text", "image", "pooled"):
            rows = kept if part == "text" else slice(None)
            assert difference(found[part], expected[part][rows]) <= 1e-5
        return
    found, theirs = run(model, features), expected[TASKS[task]]
    if task == "MaskedLM":
        theirs = theirs[np.arange(len(POSITIONS))[:, None], POSITIONS]
    if task == "Contrastive":
        found = np.stack([found[k] for k in ("text", "image", "fused")])
    assert difference(found, theirs) <= 1e-5


PICTURE = np.random.default_rng(0).integers(0, 256, (96, 128, 3), "uint8")


@pytest.mark.parametrize(
    "task, name, preset",
    [
        ("Backbone", NAMES[0], "bridgetower_base"),
        ("MaskedLM", NAMES[1], None),
        ("Retrieval", NAMES[2], f"hf://{NAMES[2]}"),
        ("MaskedLM", NAMES[3], None),
        ("Contrastive", NAMES[5], f"hf://{NAMES[5]}@main"),
        ("VQA", NAMES[6], None),
    ],
)
def test_published_repositories_open(task, name, preset, hub):
    """By path and from the cache of the hub; each task, size and kind."""
    check(task, name, preset or hub.folder(name)[0], hub)


@pytest.mark.skipif(
    keras.config.backend() == "torch", reason="its backend needs torch"
)
def test_published_presets_open_without_torch(hub, monkeypatch):
    """The numbers of such files are compared above."""
    folders = [hub.folder(name)[0] for name in NAMES[3:5]]
    monkeypatch.setitem(sys.modules, "torch", None)
    for task, folder in zip(("MaskedLM", "Contrastive"), folders, strict=True):
        opened(task, folder)


def pixels(picture, side, divisor=32):
    """Return the pixels of transformers 4, with a black edge."""
    height, width, _ = picture.shape
    scale = side / min(height, width)
    width, height = (
        int(n * scale + 0.5) // divisor * divisor for n in (width, height)
    )
    image = Image.fromarray(picture).resize((width, height), Image.BICUBIC)
    left, top = ((n - side) // 2 for n in (width, height))
    return np.asarray(image.crop((left, top, left + side, top + side)))


def normalised(pixels):
    mean = [0.48145466, 0.4578275, 0.40821073]
    std = [0.26862954, 0.26130258, 0.27577711]
    return ((pixels / 255 - mean) / std).astype("float32")


@FASTEST
@pytest.mark.parametrize("name", [NAMES[1], NAMES[3]])
def test_raw_pictures_and_texts(name, hub):
    """The verb on a picture equals transformers on pixels of transformers 4."""
    folder, _, models = hub.folder(name)
    side = published.REPOSITORIES[name].size[1]
    words, merges = tokenizer_files.few_words()
    peer_tokenizer = transformers.RobertaTokenizer(
        vocab=words, merges=[tuple(m.split(" ")) for m in merges]
    )
    text = "two cat, a red dog?"
    ids = peer_tokenizer(text, return_tensors="pt")
    image = normalised(pixels(PICTURE, side)).transpose(2, 0, 1)[None]
    with torch.no_grad():
        logits = models["itm"](**ids, pixel_values=torch.tensor(image)).logits
    task, _ = opened("Retrieval", folder)
    assert task.preprocessor.tokenizer.sequence_length == published.TEXT_LENGTH
    no_match, match = logits[0].tolist()
    assert difference(task.match_logits(PICTURE, text), match) <= 1e-5
    assert difference(task.score(PICTURE, text), match - no_match) <= 1e-5


def test_published_presets_are_described():
    """Counts of transformers' classes less what nothing reads."""
    base = 326_347_008 - 590_592 - 3 * 768 + 768
    large = 864_514_048 - 1_049_600 - 3 * 1024 + 1024
    mlm = {768: 39_245_913, 1024: 52_573_273}
    counts = {
        "bridgetower_base": base,
        "bridgetower_base_itm_mlm": base + mlm[768] + 3_074,
        "bridgetower_large_itm_mlm": large + mlm[1024] + 4_098,
        "bridgetower_large_itm_mlm_gaudi": large + mlm[1024] + 4_098,
        "bridgetower_large_itm_mlm_itc": large
        + mlm[1024]
        + 4_098
        + (866_612_737 - 864_514_048),
    }
    for name, count in counts.items():
        preset = kbt.BridgeTowerVQA.presets[name]
        assert preset.parameters == count
        assert preset.handle.startswith("hf://BridgeTower/bridgetower-")
        assert preset.image_size == (288 if "base" in name else 294)
