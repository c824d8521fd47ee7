"""What stands behind the tabs of the page: answers equal those of the verbs."""

import concurrent.futures
import os
import pathlib

import builders
import keras
import numpy as np
import pytest
from builders import FASTEST
from drawn_photos import bomb
from drawn_photos import jpeg_of_scans
from PIL import Image
from shape_drawings import draw_all
from shape_drawings import drawn

import keras_bridgetower as kbt
from keras_bridgetower.apps.demo import fragments
from keras_bridgetower.apps.demo import inputs
from keras_bridgetower.apps.demo import models
from keras_bridgetower.apps.demo.fragments import overlay
from keras_bridgetower.apps.demo.inputs import Limits
from keras_bridgetower.apps.demo.inputs import RefusedInput
from keras_bridgetower.apps.demo.tabs import ask
from keras_bridgetower.apps.demo.tabs import fill
from keras_bridgetower.apps.demo.tabs import look
from keras_bridgetower.apps.search import PictureSearch
from keras_bridgetower.presets.verbs import ANSWER
from keras_bridgetower.presets.verbs import FILL

pytestmark = FASTEST
VQA, MLM, PRETRAIN = (
    f"bridgetower_tiny_easy_{name}" for name in ("vqa", "mlm", "pretrain")
)
EMOJI = "bridgetower_tiny_emoji"
COLOR = "what color is the shape?"
TRIANGLE = ("triangle", "red", 44, 24, 26)
CIRCLE = ("circle", "blue", 20, 20, 20)


@pytest.fixture(scope="module")
def opened():
    return models.DemoModels()


@pytest.fixture(scope="module")
def picture():
    return drawn(*TRIANGLE)


def test_ask(opened, picture):
    answers, looked = ask.ask(opened, picture, COLOR, VQA)
    vqa = kbt.BridgeTowerVQA.from_preset(VQA)
    assert answers == vqa.answer(picture, COLOR, top_k=5)
    assert answers[0][0] == "red"
    # Orange lies where the triangle is, nowhere else.
    red, _, blue = np.moveaxis(np.asarray(looked, "float32"), -1, 0)
    side = len(red)
    y, x = np.unravel_index((red - blue).argmax(), red.shape)
    assert abs(x / side - 44 / 64) < 0.25 and abs(y / side - 24 / 64) < 0.25


def test_match(opened, picture):
    texts = ["a large red triangle in the east.", "a blue circle."]
    pictures = [picture, drawn(*CIRCLE), drawn(*TRIANGLE[:1], "green", 9, 9, 9)]
    task = kbt.BridgeTowerRetrieval.from_preset(PRETRAIN)
    found = task.match_probabilities(pictures, texts).T
    for text, row in zip(texts, found, strict=True):
        x = task.preprocessor({"images": pictures, "text": [text] * 3})
        logits = keras.ops.convert_to_numpy(task(x)).astype("float64")
        odds = np.exp(logits[:, 1] - logits[:, 0])
        np.testing.assert_allclose(row, odds / (1 + odds), atol=1e-5)
    assert found[0].argmax() == 0 and found[0, 0] > 0.9


def test_fill(opened, picture):
    limits = Limits()
    text = inputs.with_blanks("a large ____ <mask> in  the east.", limits)
    assert text == "a large <mask> <mask> in the east."
    words, around = fill.fill(opened, picture, text, MLM)
    task = kbt.BridgeTowerMaskedLM.from_preset(MLM)
    masks, filled = task.fill_mask(picture, text, top_k=5)
    assert [[s for _, s in some] for some in words] == [
        [s for _, s in tokens] for tokens in masks
    ]
    first, middle, last = around
    best = [some[0][0] for some in words]
    assert f"{first} {best[0]}{middle} {best[1]}{last}" == filled
    assert best == ["red", "triangle"]


def test_look(opened, picture):
    vqa = kbt.BridgeTowerVQA.from_preset(VQA)
    seen = kbt.analysis.attention_map(vqa, picture, COLOR, layer=1, head=2)
    found = look.look(opened, picture, COLOR, VQA, 2, head=3, word=1)
    expected = overlay(seen.pictures[0], seen.word_maps[1, 0])
    assert np.array_equal(found.picture, expected)
    assert found.words == COLOR.split()
    # The last word, "shape?", is two tokens.
    assert len(seen.words) == 6
    assert found.weights[:4] == pytest.approx(seen.word_weights[:4].tolist())
    assert sum(found.weights) == pytest.approx(1)
    assert found.shown == f"“{COLOR}” · “color” · layer 2 of 3 · head 3"
    found = look.look(opened, picture, COLOR, VQA, 2, head=3, word=4)
    mean = overlay(seen.pictures[0], seen.word_maps[4:, 0].mean(0))
    assert np.array_equal(found.picture, mean)
    # What another model had more of is the last, or all.
    found = look.look(opened, picture, COLOR, VQA, 99, head=99, word=99)
    assert found.shown == f"“{COLOR}” · whole text · layer 3 of 3 · all heads"
    for name in models.OFFERED:
        found = look.look(opened, picture, COLOR, name, 1)
        assert " · whole text · layer 1 of" in found.shown


def test_texts_without_a_word_are_refused(picture):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red"]
    preprocessor = kbt.BridgeTowerVQAPreprocessor(
        kbt.BridgeTowerBertTokenizer(words, sequence_length=6),
        kbt.BridgeTowerImageConverter(builders.SIDE),
        ["yes", "no"],
        features=("images", "token_ids", "padding_mask", "segment_ids"),
    )
    backbone = builders.backbone(text_encoder=builders.bert(), num_layers=1)
    task = kbt.BridgeTowerVQA(backbone, preprocessor)

    class Opened:
        def open(self, *names):
            return task

    assert look.look(Opened(), picture, "red", "own", 0).words == ["red"]
    # A control character is no token of BERT.
    with pytest.raises(RefusedInput, match="reads no word"):
        look.look(Opened(), picture, "\x01", "own", 1)


@pytest.mark.parametrize(
    "preset, words",
    [
        ("vqa", "what colour is it mostly?"),
        ("vqa", "un café, don't 🐙 strawberries"),
        ("vqa", "a"),
        ("mlm", "a <mask> . circle <mask>"),
    ],
)
def test_words_are_whole(opened, picture, preset, words):
    text = words.replace(" .", ".").replace("circle <", "circle<")
    found = look.look(opened, picture, text, f"{EMOJI}_{preset}", 1)
    assert found.words == words.split()
    assert len(found.weights) == len(found.words)


def test_overlay_colors_large_weights():
    weights = np.full((8, 8), 0.01)
    weights[2, 5] = 0.3
    shown = np.asarray(overlay(np.ones((64, 64, 3)), weights, 64), "float32")
    orange = shown[..., 0] - shown[..., 2]
    assert orange[20, 44] > 100
    assert orange[:8].max() == orange[40:].max() == 0
    even = overlay(np.ones((64, 64, 3)), np.full((8, 8), 1 / 64), 64)
    assert np.asarray(even).min() == 255


def test_search(opened, tmp_path, monkeypatch):
    pytest.importorskip("lancedb", reason="the extra `demo`")
    from keras_bridgetower.apps.demo.tabs.search import IndexShelf

    paths = draw_all(tmp_path)
    text = "a large red triangle in the east."
    task = kbt.BridgeTowerRetrieval.from_preset(PRETRAIN)
    scores = task.score(list(paths.values()), text)
    best = [list(paths.values())[i] for i in np.argsort(-scores)]
    shelf = IndexShelf(opened)
    found = shelf.find(tuple(paths.values()), text, PRETRAIN)
    assert [hit.path for _, hit in found.hits] == best[: Limits.hits]
    drops = -np.diff(-np.sort(-scores)[: Limits.hits + 1])
    assert found.good == 1 + drops.argmax() == 1
    assert best[0] == paths["red_triangle"] and found.searched == len(paths)
    assert max(found.hits[0][0].size) <= 384

    (tmp_path / "notes.png").write_text("no picture")
    told = []
    found = shelf.find(str(tmp_path), text, PRETRAIN, told.append)
    assert [hit.path for _, hit in found.hits] == best[: Limits.hits]
    assert found.unreadable == ["notes.png"] and told[-1].done == 13
    assert "notes.png" in fragments.found(**vars(found))
    # Files that are deleted, renamed or damaged after they were indexed.
    for path in map(pathlib.Path, best[1:]):
        path.unlink()
    found = shelf.find(str(tmp_path), text, PRETRAIN)
    assert [hit.path for _, hit in found.hits] == best[:1]
    assert found.searched == 1
    query = PictureSearch.query

    def damaged(*args, **kwargs):
        hits = query(*args, **kwargs)
        pathlib.Path(best[0]).write_text("no picture")
        return hits

    with monkeypatch.context() as patch:
        patch.setattr(PictureSearch, "query", damaged)
        assert shelf.find(str(tmp_path), text, PRETRAIN).hits == []
    pathlib.Path(best[0]).unlink()
    (tmp_path / "notes.png").unlink()
    with pytest.raises(RefusedInput, match="There are no pictures in “"):
        shelf.find(str(tmp_path), text, PRETRAIN)
    (tmp_path / "notes.png").write_text("no picture")
    with pytest.raises(RefusedInput, match="None of these"):
        shelf.find((str(tmp_path / "notes.png"),), text, PRETRAIN)
    shelf.close()
    assert not os.path.exists(shelf._folder.name)


@pytest.mark.parametrize(
    ("scores", "good"),
    [
        ([0.9, 0.8, 0.3, 0.2], 2),
        ([0.9, 0.1], 1),
        ([3.0, -1.0, -1.1], 1),
        ([0.5, 0.5], 2),
        ([0.5], 1),
        ([], 0),
    ],
)
def test_good_hits_end_at_the_largest_drop(scores, good):
    from keras_bridgetower.apps.demo.tabs import search as searching

    assert searching.largest_drop(scores) == good


def test_threads_share_one_model(opened, picture):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(
            pool.map(lambda _: ask.ask(opened, picture, COLOR, VQA), range(8))
        )
    assert len({tuple(answers) for answers, _ in found}) == 1
    fresh = models.DemoModels()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        same = set(pool.map(lambda _: id(fresh.open(MLM, FILL)), range(4)))
    assert len(same) == 1


def test_presets(opened):
    assert opened.offered((ANSWER,)) == [f"{EMOJI}_vqa", VQA]
    assert opened.offered((models.SEARCH,))[0] == f"{EMOJI}_contrastive"
    with pytest.raises(RefusedInput, match=f"cannot answer.*such as {EMOJI}"):
        opened.open(MLM, ANSWER)
    with pytest.raises(RefusedInput, match="Choose a model"):
        opened.open(None, ANSWER)
    with pytest.raises(ValueError, match="`preset` must be one of the names"):
        opened.open("none", ANSWER)
    closed = models.DemoModels((VQA,), others=False)
    with pytest.raises(RefusedInput, match="does not offer"):
        closed.open(MLM, FILL)
    # The one that was asked longest ago leaves the memory.
    few = models.DemoModels(limits=Limits(models=1))
    first = few.open(VQA, ANSWER)
    few.open(MLM, FILL)
    assert few.open(VQA, ANSWER) is not first


def test_inputs(tmp_path):
    limits = Limits()
    for value in (None, {}, {"path": None}, "path", {"path": 3}):
        with pytest.raises(RefusedInput, match="Choose a picture"):
            inputs.uploaded_path(value)
    one = {"image": {"path": "a.png"}, "caption": None}
    assert inputs.uploaded_paths([one] * 8, 8) == ["a.png"] * 8
    for values, told in (
        ([one] * 9, "at most 8 pictures. You chose 9"),
        ([], "Choose some"),
        (None, "Choose some"),
        ([{"video": {"path": "a.mp4"}}], "Choose some"),
    ):
        with pytest.raises(RefusedInput, match=told):
            inputs.uploaded_paths(values, 8)
    assert inputs.checked_text(" a \n b ", "text", limits) == "a b"
    assert inputs.checked_lines("a\n\n b ", limits) == ["a", "b"]
    for call, value, told in (
        (inputs.checked_lines, " \n", "Write some texts"),
        (inputs.checked_lines, "a\n" * 9, "at most 8 texts"),
        (inputs.checked_lines, None, "Write some texts"),
        (inputs.checked_lines, "a\n" + "b" * 301, "too long"),
        (inputs.with_blanks, "no blank", "three underscores"),
    ):
        with pytest.raises(RefusedInput, match=told):
            call(value, limits)
    for value in (None, 3, "", " \0 "):
        with pytest.raises(RefusedInput, match="Write a question"):
            inputs.checked_text(value, "question", limits)


def test_files(tmp_path):
    limits = Limits(pixels=1_000_000)
    good, large, damaged = (
        tmp_path / f"{name}.png" for name in ("good", "large", "damaged")
    )
    drawn(*CIRCLE).save(good)
    assert inputs.opened_picture(str(good), limits).size == (256, 256)
    Image.new("L", (1001, 1000)).save(large)
    with pytest.raises(RefusedInput, match="1,001 × 1,000 pixels"):
        inputs.check_picture(str(large), limits)
    bomb(large)
    with pytest.raises(RefusedInput, match="too many pixels"):
        inputs.opened_picture(str(large), limits)
    scans = tmp_path / "scans.png"
    scans.write_bytes(jpeg_of_scans(101))
    with pytest.raises(RefusedInput, match="more than 100 scans"):
        inputs.opened_picture(str(scans), limits)
    damaged.write_bytes(good.read_bytes()[:300])
    inputs.check_picture(str(damaged), limits)
    for path in (damaged, tmp_path, tmp_path / "none.png", "/dev/zero"):
        with pytest.raises(RefusedInput, match="not a picture that can"):
            inputs.opened_picture(str(path), limits)


def test_fragments_escape_html():
    name = "<script>alert(1)</script>"
    picture = drawn(*CIRCLE, side=8)
    for made in (
        fragments.label(name),
        fragments.answer(name, [(name, 0.5)], name),
        fragments.filled([[(name, 0.5)]], [name, name], name),
        fragments.marked_words(name, [name, "b"], [0.5, 0.0]),
        fragments.heat_map([name], [picture], np.array([[0.99]]), name),
    ):
        assert "<script" not in made and "&lt;script&gt;" in made
    assert "width:50.0%" in fragments.bars([("a", 0.5)])
    assert "99 %" in fragments.heat_map(["a"], [picture], [[0.99]], "")
