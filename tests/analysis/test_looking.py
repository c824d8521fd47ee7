"""Head diversity and attention maps, against NumPy and transformers."""

import dataclasses
import itertools

import builders
import every_task
import keras
import numpy as np
import peer
import pytest
from builders import LONG_ELSEWHERE
from builders import array
from builders import features
from builders import randomise
from builders import raw
from builders import shallow

from keras_bridgetower import analysis
from keras_bridgetower.analysis import diversity
from keras_bridgetower.analysis import figures
from keras_bridgetower.models.cross_modal import CROSS_ENCODERS

pytestmark = LONG_ELSEWHERE

TEXT = "is it red?"


def vqa(**kwargs):
    return randomise(builders.vqa(**kwargs))


def picture(seed=0):
    return raw(1, seed)[0]["images"][0]


@pytest.fixture(scope="module")
def task():
    return vqa()


def by_loops(maps, queries):
    """Compute the formula for one pair of heads and one token at a time."""
    found = []
    for sample, kept in zip(maps.astype("float64"), queries, strict=True):
        values = []
        for h, g in itertools.permutations(range(len(sample)), 2):
            for i in np.flatnonzero(kept):
                p, q = sample[h, i], sample[g, i]
                used = p > 0
                ratio = np.log(p[used] / np.maximum(q[used], 1e-12))
                values.append((p[used] * ratio).sum())
        found.append(np.mean(values))
    return np.array(found)


@pytest.mark.parametrize("cross", CROSS_ENCODERS)
def test_head_diversity_equals_a_double_loop(cross):
    model = vqa(cross_encoder=cross, num_layers=2)
    batches = [raw(3, seed)[0] for seed in range(2)]
    batches[0]["text"][0] = "a text that is far longer"
    found = analysis.head_diversity(model, batches)
    values = {kind: [] for kind in diversity.KINDS}
    for x in batches:
        made = model.preprocessor(x)
        maps = model.backbone.attention_maps(made)
        queries = {"text": made["padding_mask"], "image": np.ones((3, 17))}
        for kind in values:
            side = queries[kind.split("_")[0]]
            values[kind].append([by_loops(m, side) for m in maps[kind]])
    assert found.samples == 6
    for kind, by_batch in values.items():
        expected = np.concatenate(by_batch, axis=-1)
        assert np.abs(found.mean[kind] - expected.mean(-1)).max() <= 1e-6
        assert np.abs(found.spread[kind] - expected.std(-1)).max() <= 1e-6


def test_equal_heads_have_no_divergence():
    maps = np.tile(np.random.default_rng(0).dirichlet([1] * 5, 3), (2, 4, 1, 1))
    assert np.abs(diversity.head_divergence(maps)).max() <= 1e-12
    with pytest.raises(ValueError, match="`maps` must have two heads"):
        diversity.head_divergence(maps[:, :1])


def test_attention_maps_equal_transformers():
    import torch

    model, ours = peer.pair(peer.SMALL)
    mine, theirs = peer.inputs(peer.SMALL)
    tower = model.bridgetower
    tower.set_attn_implementation("eager")
    crossed = {"text": [], "image": []}
    for side, kept in crossed.items():
        for layer in getattr(tower, f"cross_modal_{side}_layers"):
            layer.crossattention.self.register_forward_hook(
                lambda module, inputs, out, kept=kept: kept.append(out[1])
            )
    with torch.no_grad():
        found = tower(**theirs, output_attentions=True).attentions
    maps = ours.attention_maps(mine)
    assert len(found) == len(maps["text_self"]) == 3
    for layer, (text, image) in enumerate(found):
        expected_maps = {
            **{"text_self": text, "text_cross": crossed["text"][layer]},
            **{"image_self": image, "image_cross": crossed["image"][layer]},
        }
        for name, expected in expected_maps.items():
            off = np.abs(maps[name][layer] - expected.numpy())
            # Padding is ignored.
            kept = mine["padding_mask"] if name[0] == "t" else np.ones((2, 17))
            assert off.max(axis=(1, 3))[kept == 1].max() <= 1e-5


@pytest.mark.parametrize(
    "name, values",
    [
        ("vqa", {"cross_encoder": "merged_attention"}),
        *((name, {}) for name in ("retrieval", "nlvr2", "masked_lm")),
    ],
)
def test_every_map_sums_to_one(name, values):
    model = randomise(every_task.make(name, shallow(**values)))
    pictures = 2 if name == "nlvr2" else 1
    image = [picture(0), picture(1)] if name == "nlvr2" else picture()
    # Every byte is a token of the tokenizer.
    text = "is it <mask>?" if name == "masked_lm" else TEXT
    for made in (
        analysis.attention_map(model, image, text, head=1),
        analysis.attention_rollout(model, image, text),
        analysis.relevance(model, image, text),
    ):
        count = len(made.words)
        # A token for each byte; `<mask>` takes the space before it along.
        assert count == len(text.replace(" <mask>", "m"))
        assert made.word_maps.shape == (count, pictures, 4, 4)
        assert made.whole.shape == (pictures, 4, 4)
        assert made.pictures.shape == (pictures, 32, 32, 3)
        for maps in (made.word_maps, made.whole):
            assert (maps >= 0).all()
            assert np.allclose(maps.sum((-2, -1)), 1, atol=1e-5)
        assert made.word_weights.sum() == pytest.approx(1, abs=1e-5)
        # Each picture has maps of its own.
        assert pictures == 1 or np.abs(np.diff(made.whole, axis=0)).max() > 1e-6
    assert ("<mask>" in made.words) == (name == "masked_lm")


def test_attention_map_is_the_attention_of_its_layer(task):
    made = analysis.attention_map(task, picture(), TEXT, layer=1, head=0)
    inputs = task.preprocessor({"images": [picture()], "text": [TEXT]})
    maps = task.backbone.attention_maps(inputs)["text_cross"][1][0, 0]
    # Without <s> before and </s> behind, and without the class token.
    expected = maps[1 : 1 + len(TEXT), 1:]
    expected = expected / expected.sum(-1, keepdims=True)
    assert "".join(made.words) == TEXT.replace(" ", "Ġ")
    found = made.word_maps.reshape(len(TEXT), 16)
    assert np.abs(found - expected).max() <= 1e-6


def test_rollout_equals_its_formula(task):
    inputs = task.preprocessor({"images": [picture()], "text": [TEXT]})
    lists = {name: array(x).tolist() for name, x in inputs.items()}
    maps = task.backbone.attention_maps(lists)
    tokens = inputs["token_ids"].shape[1]
    text, image = slice(0, tokens), slice(tokens, None)
    identity = rolled = np.eye(tokens + 17)
    for layer in range(2):
        rolled, mixed = (rolled + identity) / 2, identity
        for kind, sides in (("self", (text, image)), ("cross", (image, text))):
            branch = np.zeros_like(identity)
            for name, rows, keys in zip(
                ("text", "image"), (text, image), sides, strict=True
            ):
                branch[rows, keys] = maps[f"{name}_{kind}"][layer][0].mean(0)
            mixed = (mixed + branch) / 2
        rolled = mixed @ rolled
    expected = rolled[1 : 1 + len(TEXT), tokens + 1 :]
    expected = expected / expected.sum(-1, keepdims=True)
    found = analysis.attention_rollout(task, picture(), TEXT).word_maps
    assert np.abs(found.reshape(expected.shape) - expected).max() <= 1e-6


@pytest.mark.parametrize("cross", CROSS_ENCODERS)
def test_attention_gradient_equals_a_finite_difference(cross):
    from keras_bridgetower.backend import backend_ops
    from keras_bridgetower.models.attention import watch_attention

    model = vqa(cross_encoder=cross)
    inputs = features(batch=1)
    tensors = {k: keras.ops.convert_to_tensor(v) for k, v in inputs.items()}
    shapes = []
    with watch_attention(lambda n, w: shapes.append(tuple(w.shape)) or w):
        before = array(model.outputs_of(tensors))[0, 2]

    def score(probes):
        waiting = iter(probes)
        with watch_attention(lambda n, w: w + next(waiting)):
            return model.outputs_of(tensors)[0, 2]

    zeros = [np.zeros(shape, "float32") for shape in shapes]
    slopes = backend_ops.gradients(score, zeros)
    step = np.zeros_like(zeros[0])
    step[0, 1, 0, 2] = 1e-2
    probes = [keras.ops.convert_to_tensor(x) for x in (step, *zeros[1:])]
    changed = score(probes)
    slope = (float(array(changed)) - before) / 1e-2
    assert slope == pytest.approx(slopes[0][0, 1, 0, 2], rel=0.1, abs=1e-3)


def test_relevance_of_different_answers(task):
    red, blue = (
        analysis.relevance(task, picture(), TEXT, answer=answer)
        for answer in ("red", np.int64(3))
    )
    titles = [f"relevance for {answer}" for answer in ("red", "blue")]
    assert [red.title, blue.title] == titles
    assert np.abs(red.whole - blue.whole).max() > 1e-4


def test_invalid_analyses_are_rejected(task):
    for name in ("layer", "head"):
        with pytest.raises(IndexError):
            analysis.attention_map(task, picture(), TEXT, **{name: 2})
    for answer in ("green", 4, True):
        with pytest.raises(ValueError, match=f"answer={answer!r}"):
            analysis.relevance(task, picture(), TEXT, answer=answer)
    for name in ("image_classifier", "text_regressor"):
        one_tower = every_task.make(name)
        with pytest.raises(ValueError, match="`model` must read pictures and"):
            analysis.attention_rollout(one_tower, picture(), TEXT)
        with pytest.raises(ValueError, match="`model` must read pictures and"):
            analysis.head_diversity(one_tower, [raw()[0]])
    with pytest.raises(ValueError, match="`model` must predict logits"):
        analysis.relevance(every_task.make("contrastive"), picture(), TEXT)


def test_figures_are_drawn(task, tmp_path):
    pytest.importorskip("matplotlib")
    from PIL import Image

    found = analysis.head_diversity(task, [raw()[0]])
    made = figures.head_diversity({"METER": found, "BridgeTower": found})
    assert made.axes[0].get_title() == "METER: visual self-attention"
    seen = analysis.attention_rollout(task, picture(), TEXT)
    for figure in (made, figures.attention(seen)):
        figure.savefig(tmp_path / "figure.png")
        with Image.open(tmp_path / "figure.png") as drawn:
            assert len(drawn.convert("L").getcolors()) > 20
    # As of a picture of many patches.
    small = {n: getattr(seen, n) / 60 for n in ("whole", "word_maps")}
    figure = figures.attention(dataclasses.replace(seen, **small))
    figure.savefig(tmp_path / "figure.png")
    [bar] = [a for a in figure.axes if a.get_ylabel() == "share of a patch"]
    labels = [label.get_text() for label in bar.get_yticklabels()]
    assert len({*labels}) == len(labels) > 2
