"""What stands behind the tabs of the page: answers equal those of the verbs."""

import concurrent.futures
import html
import os
import pathlib
import threading

import numpy as np
import pytest
from builders import FASTEST
from drawn_photos import bomb
from drawn_photos import draw
from drawn_photos import jpeg_of_scans
from PIL import Image
from PIL import ImageDraw

import keras_bridgetower as kbt
from keras_bridgetower.apps.demo import fragments
from keras_bridgetower.apps.demo import inputs
from keras_bridgetower.apps.demo import models
from keras_bridgetower.apps.demo.fragments import overlay
from keras_bridgetower.apps.demo.inputs import RefusedInput
from keras_bridgetower.apps.demo.tabs import ask
from keras_bridgetower.apps.demo.tabs import fill
from keras_bridgetower.apps.demo.tabs import look
from keras_bridgetower.apps.demo.tabs import search as searching
from keras_bridgetower.presets import verbs
from keras_bridgetower.presets.verbs import ANSWER
from keras_bridgetower.presets.verbs import FILL
from keras_bridgetower.presets.verbs import Answers

pytestmark = FASTEST
VQA, MLM, PRETRAIN = (
    f"bridgetower_tiny_easy_{name}" for name in ("vqa", "mlm", "pretrain")
)
EMOJI = "bridgetower_tiny_emoji"
COLOR = "what color is the shape?"


@pytest.fixture(scope="module")
def opened():
    return models.DemoModels()


@pytest.fixture(scope="module")
def picture():
    """A red triangle around (176, 96)."""
    picture = Image.new("RGB", (256, 256), (241, 245, 240))
    corners = [(176, 44), (124, 148), (228, 148)]
    ImageDraw.Draw(picture).polygon(corners, fill="red")
    return picture


def test_ask(opened, picture):
    answers, looked = ask.ask(opened, picture, COLOR, VQA)
    vqa = kbt.BridgeTowerVQA.from_preset(VQA)
    assert answers == vqa.answer(picture, COLOR, top_k=5)
    assert answers[0][0] == "red"
    # Orange lies where the triangle is, nowhere else.
    red, _, blue = np.moveaxis(np.asarray(looked, "float32"), -1, 0)
    side = len(red)
    y, x = np.unravel_index((red - blue).argmax(), red.shape)
    assert abs(x / side - 176 / 256) < 0.25 and abs(y / side - 96 / 256) < 0.25


@pytest.mark.parametrize("known", [True, False, None])
def test_ask_says_what_is_unknown(known):
    page = ask.shown(Answers([("red", 0.9), ("blue", 0.2)], known))
    said = html.escape(verbs.UNKNOWN) in page
    assert said is (known is False)
    # A guess is no heading.
    heading = '<p class="kb-answer">red</p>' in page
    assert heading is (known is not False)
    assert page.count('<span class="kb-name">') == 2


def test_fill(opened, picture):
    text = inputs.with_blanks("a large ____ <mask> in  the east.")
    assert text == "a large <mask> <mask> in the east."
    words, (first, middle, last) = fill.fill(opened, picture, text, MLM)
    task = kbt.BridgeTowerMaskedLM.from_preset(MLM)
    masks, filled = task.fill_mask(picture, text, top_k=5)
    assert [[s for _, s in some] for some in words] == [
        [s for _, s in tokens] for tokens in masks
    ]
    best = [some[0][0] for some in words]
    assert best == ["red", "triangle"]
    assert f"{first} {best[0]}{middle} {best[1]}{last}" == filled


def test_look(opened, picture):
    vqa = kbt.BridgeTowerVQA.from_preset(VQA)
    seen = kbt.analysis.attention_map(vqa, picture, COLOR, layer=1, head=2)
    # The last word, "shape?", is two tokens.
    for word, tokens in ((2, slice(1, 2)), (5, slice(4, 6))):
        found = look.look(opened, picture, COLOR, VQA, 2, head=3, word=word)
        mean = seen.word_maps[tokens, 0].mean(0)
        assert np.array_equal(found.picture, overlay(seen.pictures[0], mean))
    assert found.words == COLOR.split()
    assert found.weights[:4] == pytest.approx(seen.word_weights[:4].tolist())
    assert sum(found.weights) == pytest.approx(1)
    assert found.shown == f"“{COLOR}” · “shape?” · layer 2 of 3 · head 3"
    # What another model had more of is the last, or all.
    found = look.look(opened, picture, COLOR, VQA, 99, head=99, word=99)
    assert found.shown == f"“{COLOR}” · whole text · layer 3 of 3 · all heads"


@pytest.mark.parametrize(
    "preset, words",
    [
        ("vqa", "un café, don't 🐙 strawberries"),
        ("mlm", "a <mask> . circle <mask>"),
    ],
)
def test_words_are_whole(opened, picture, preset, words):
    text = words.replace(" .", ".").replace("circle <", "circle<")
    found = look.look(opened, picture, text, f"{EMOJI}_{preset}", 1)
    assert found.words == words.split()
    assert len(found.weights) == len(found.words)


def test_search(opened, tmp_path):
    pytest.importorskip("lancedb", reason="the extra `demo`")
    draw(tmp_path)
    (tmp_path / "broken.png").unlink()
    paths = [str(path) for path in tmp_path.rglob("*.png")]
    text = "a small red circle."
    # Matching is not known to improve this preset's lists.
    task = kbt.BridgeTowerContrastive.from_preset(PRETRAIN)
    scores = task.embed(images=paths) @ task.embed(texts=text)
    best = [paths[i] for i in np.argsort(-scores)]
    shelf = searching.IndexShelf(opened)
    found = shelf.find(tuple(paths), text, PRETRAIN)
    assert [hit.path for _, hit in found.hits] == best[: searching.HITS]
    drops = -np.diff(-np.sort(-scores)[: searching.HITS + 1])
    assert found.good == 1 + drops.argmax()
    assert found.searched == len(paths)

    notes = tmp_path / "notes.png"
    notes.write_text("no picture")
    every = (*paths, str(notes))
    found = shelf.find(every, text, PRETRAIN)
    assert found.unreadable == ["notes.png"]
    assert "notes.png" in fragments.found(**vars(found))
    for path in map(pathlib.Path, best[1:]):
        path.unlink()
    found = shelf.find(every, text, PRETRAIN)
    assert [hit.path for _, hit in found.hits] == best[:1]
    with pytest.raises(RefusedInput, match="None of these"):
        shelf.find((str(notes),), text, PRETRAIN)
    # An index stays, even if its models have left the cache meanwhile.
    kept = os.listdir(shelf._folder.name)
    opened._opened.cache_clear()
    shelf.find(every, text, PRETRAIN)
    assert os.listdir(shelf._folder.name) == kept
    shelf.close()
    assert not os.path.exists(shelf._folder.name)


@pytest.mark.parametrize(
    ("scores", "good"),
    [([0.9, 0.8, 0.3, 0.2], 2), ([3.0, -1.0, -1.1], 1), ([0.5] * 2, 2)],
)
def test_good_hits_end_at_the_largest_drop(scores, good):
    assert searching.largest_drop(scores) == good


def test_threads_share_one_model(monkeypatch):
    waited = []
    fresh = models.DemoModels(loading=waited.append)
    began, end = threading.Event(), threading.Event()

    def from_preset(preset):
        began.set()
        end.wait()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        [same] = set(pool.map(lambda _: fresh.open(MLM, FILL), range(4)))
        # Whoever waits is told, and nobody after that.
        assert 1 <= waited.count(MLM) <= 4
        told = len(waited)
        assert fresh.open(MLM, FILL) is same and len(waited) == told
        # Another preset takes long to open.
        monkeypatch.setattr(kbt.BridgeTowerVQA, "from_preset", from_preset)
        pool.submit(fresh.open, VQA, ANSWER)
        began.wait()
        try:
            assert pool.submit(fresh.open, MLM, FILL).result(10) is same
        finally:
            end.set()


def test_presets():
    for others, preset, told in (
        (True, MLM, f"cannot answer.*such as {EMOJI}"),
        (True, None, "Choose a model"),
        (False, MLM, "does not offer"),
    ):
        models_ = models.DemoModels((VQA,), others)
        assert models_.offered((ANSWER,)) == [VQA]
        with pytest.raises(ValueError, match=told):
            models_.open(preset, ANSWER)


PATH = {"image": {"path": "a.png"}, "caption": None}


@pytest.mark.parametrize(
    ("call", "value", "told"),
    [
        *((inputs.uploaded_path, x, "picture") for x in (None, {}, [3])),
        (inputs.uploaded_path, {"path": 3}, "Choose a picture"),
        (lambda x: inputs.uploaded_paths(x, 8), [PATH] * 9, "1 to 8 pictures"),
        (inputs.checked_lines, " \n", "1 to 8 texts"),
        (inputs.checked_lines, "a\n" * 9, "1 to 8 texts"),
        (inputs.checked_lines, "a\n" + "b" * 301, "too long"),
        (inputs.with_blanks, "no blank", "three underscores"),
        (inputs.with_blanks, " \0 ", "Write a sentence"),
    ],
)
def test_refused_inputs(call, value, told):
    with pytest.raises(RefusedInput, match=told):
        call(value)


def test_files(tmp_path, monkeypatch, picture):
    monkeypatch.setattr(inputs, "PIXELS", 1_000_000)
    good, large, huge, damaged, scans = (
        tmp_path / f"{name}.png"
        for name in ("good", "large", "huge", "damaged", "scans")
    )
    picture.save(good)
    assert inputs.opened_picture(str(good)).size == (256, 256)
    Image.new("L", (1001, 1000)).save(large)
    bomb(huge)
    damaged.write_bytes(good.read_bytes()[:300])
    scans.write_bytes(jpeg_of_scans(101))
    for path in (large, huge):
        with pytest.raises(RefusedInput, match="at most 1 million pixels"):
            inputs.opened_picture(str(path))
    for path in (damaged, scans, tmp_path, tmp_path / "none.png", "/dev/zero"):
        with pytest.raises(RefusedInput, match="not a picture that can"):
            inputs.opened_picture(str(path))


def test_fragments_escape_html(picture):
    name = "<script>alert(1)</script>"
    for made in (
        fragments.label(name),
        fragments.answer(name, [(name, 0.5)], name),
        fragments.filled([[(name, 0.5)]], [name, name], name),
        fragments.marked_words(name, [name, "b"], [0.5, 0.0]),
        fragments.heat_map([name], [picture], np.array([[0.99]]), name),
    ):
        assert "<script" not in made and "&lt;script&gt;" in made
    assert "width:50.0%" in fragments.bars([("a", 0.5)])
