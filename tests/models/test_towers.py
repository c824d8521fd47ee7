"""Towers: states of every encoder, row 0, resized positions."""

import math

import keras
import keras_hub
import numpy as np
import pytest
import torch
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import ONE_BACKEND
from builders import array
from builders import assert_same_weights
from builders import backbone
from builders import clip
from builders import deit
from builders import difference
from builders import features
from builders import randomise
from builders import roberta
from builders import run
from builders import shallow
from builders import some_everywhere
from builders import vit

import keras_bridgetower as kbt
from keras_bridgetower.models.fusion import merge_tokens
from keras_bridgetower.models.positions import resize_positions
from keras_bridgetower.models.towers import Coordinates
from keras_bridgetower.models.towers import SameGrid


@LONG_ELSEWHERE
def test_blocks_above_the_highest_tap_are_excluded():
    encoder = clip(layers=3)
    whole = kbt.Tower(encoder, (-2, -1))
    lower = kbt.Tower(encoder, (-3, -2))
    block = len(encoder.encoder_layers[0].weights)
    assert len(whole.weights) - len(lower.weights) == block


@LONG_ELSEWHERE
def test_towers_alone_correct_the_defaults_of_their_encoders():
    encoder = clip()
    kbt.hidden_states(encoder)
    assert not array(encoder.embedding.position_ids).any()
    kbt.Tower(encoder, (-1,))
    positions = array(encoder.embedding.position_ids)
    np.testing.assert_array_equal(positions, [np.arange(17)])


@LONG_ELSEWHERE
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
@pytest.mark.parametrize("dtype", ["bfloat16", "mixed_bfloat16"])
def test_towers_have_the_policy_of_their_encoders(dtype):
    made = [kbt.Tower(make(dtype=dtype), (-1,)) for make in (clip, roberta)]
    made += [kbt.Tower.from_config(tower.get_config()) for tower in made]
    assert {tower.dtype_policy.name for tower in made} == {dtype}
    encoder = clip(dtype=dtype)
    encoder.quantize("int8")
    assert kbt.Tower(encoder, (-1,)).dtype_policy.name == dtype
    with pytest.raises(TypeError, match="dtype"):
        kbt.Tower(clip(), (-1,), dtype=dtype)


@LONG_ELSEWHERE
@pytest.mark.parametrize("make", [clip, deit])
def test_per_tap_norms_start_as_copies(make):
    encoder = make()
    randomise(encoder)
    shared = kbt.Tower(encoder, (-2, -1))
    own = kbt.Tower(encoder, (-2, -1), norms="per_tap")
    inputs = features()["images"]
    before = run(shared, inputs)
    for a, b in zip(before, run(own, inputs), strict=True):
        assert difference(a, b) <= 1e-6
    gamma = own.get_layer("tap_0_norm").gamma
    gamma.assign(array(gamma) * 2)
    low, high = run(own, inputs)
    assert difference(high, before[1]) <= 1e-6
    assert difference(low, before[0]) > 0.1


def test_copied_weights_have_memory_of_their_own():
    # On JAX a step deletes that of the weights of its model.
    encoder, model = vit(layers=2), shallow()
    tower = kbt.Tower(encoder, (-2, -1), norms="per_tap")
    models = encoder, tower, model, model.with_image_size(48)
    weights = {id(w): w for one in models for w in one.weights}.values()
    assert len({id(weight.value) for weight in weights}) == len(weights)


@keras.saving.register_keras_serializable(package="test_summary")
class Grids(keras.Model):
    """A pyramid of three maps, of widths and sides that differ."""

    def __init__(self, side=32, **kwargs):
        images = keras.Input((side, side, 3), name="images")
        maps = [images]
        for width in (4, 6, 8):
            conv = keras.layers.Conv2D(width, 3, 2, padding="same")
            maps.append(conv(maps[-1]))
        super().__init__(images, maps[-1], **kwargs)
        self.maps, self.side = maps[1:], side

    def get_config(self):
        return {"side": self.side, "name": self.name}


@kbt.register_encoder(Grids, "image", prefix_tokens=lambda encoder: 0)
def grid_states(encoder):
    return encoder.maps


def test_grids_become_tokens_of_the_highest_grid():
    encoder = Grids()
    tower = kbt.Tower(encoder, (-3, -2, -1))
    assert (tower.summary, tower.prefix_tokens) == ("mean", 1)
    with pytest.raises(ValueError, match="`summary`"):
        kbt.Tower(encoder, (-1,), summary="class")
    images = features()["images"]
    states = run(tower, images)
    assert [x.shape[1:] for x in states] == [(17, 4), (17, 6), (17, 8)]
    maps = run(keras.Model(encoder.input, encoder.maps), images)
    for state, grid in zip(states, maps, strict=True):
        # Means of equal squares.
        grid, size = array(grid), grid.shape[1] // 4
        cells = grid.reshape(3, 4, size, 4, size, -1).mean((2, 4))
        tokens = cells.reshape(3, 16, -1)
        assert difference(array(state)[:, 1:], tokens) <= 1e-6
        assert difference(array(state)[:, 0], tokens.mean(1)) <= 1e-6


def test_sides_that_do_not_divide_are_averaged_by_area():
    x = np.arange(5.0, dtype="float32").reshape(1, 1, 5, 1)
    got = array(SameGrid((1, 2))(x)).ravel()
    # Two and a half cells each.
    np.testing.assert_allclose(got, [(0 + 1 + 1) / 2.5, (1 + 3 + 4) / 2.5])


@pytest.mark.parametrize("side", [2, 7])
def test_coordinates_are_those_of_the_centers(side):
    x = np.random.default_rng(0).normal(size=(3, side * side, 4))
    layer = Coordinates((side, side))
    got = array(layer(x.astype("float32")))
    assert got.shape == (3, *layer.compute_output_shape(x.shape)[1:])
    assert difference(got[..., :4], x) <= 1e-6
    for token in range(side * side):
        # A cell is two shares of the side wide, its center one from its edge.
        places = [(2 * n + 1) / side - 1 for n in divmod(token, side)]
        angles = [share * x for share in (np.pi / 2, np.pi) for x in places]
        channels = [*places, *map(math.sin, angles), *map(math.cos, angles)]
        assert difference(got[:, token, 4:], [channels] * 3) <= 1e-6


def test_towers_append_the_mean_colors_of_areas():
    encoder = Grids()
    plain, colored = (
        kbt.Tower(encoder, (-2, -1), positions=positions)
        for positions in ("coordinates", "coordinates_and_colors")
    )
    image = features()["images"]
    rows, side = image.shape[:2]
    for one, other in zip(plain(image), colored(image), strict=True):
        one, other = array(one), array(other)
        # Features, colors, coordinates.
        width = one.shape[-1] - 10
        rest = np.delete(other, np.arange(width, width + 3), -1)
        np.testing.assert_allclose(rest, one, atol=1e-6)
        cells = math.isqrt(one.shape[1] - 1)
        step = side // cells
        areas = image.reshape(rows, cells, step, cells, step, 3).mean((2, 4))
        np.testing.assert_allclose(
            *(other[:, 1:, width : width + 3], areas.reshape(rows, -1, 3)),
            atol=1e-6,
        )


def test_towers_append_coordinates_before_the_summary():
    encoder, images = Grids(), features()["images"]
    plain = run(kbt.Tower(encoder, (-2, -1)), images)
    tower = kbt.Tower(encoder, (-2, -1), positions="coordinates")
    copy = kbt.Tower.from_config(tower.get_config())
    copy.set_weights(tower.get_weights())
    for state, without in zip(run(copy, images), plain, strict=True):
        width = without.shape[-1]
        assert state.shape == (3, 17, width + 10)
        assert difference(state[..., :width], without) <= 1e-6
        # Of all places, both coordinates have the mean 0.
        assert np.abs(state[:, 0, width : width + 2]).max() <= 1e-6
    assert "positions" not in kbt.Tower(encoder, (-1,)).get_config()


@FASTEST
def test_image_taps_are_saved_where_they_differ():
    given = dict(text_encoder=roberta(), projections="per_layer")
    given["image_encoder"] = Grids()
    made = backbone(**given, taps=(-2, -1), image_taps=(-3, -1))
    assert [x.shape[-1] for x in made.image_tower.outputs] == [4, 8]
    assert made.get_config()["image_taps"] == (-3, -1)
    # What was saved without them stays as it was.
    keys = backbone(**given).get_config().keys()
    same = backbone(**given, image_taps=(-2, -1)).get_config().keys()
    assert same == keys and not keys & {"image_taps", "image_positions"}


@pytest.mark.parametrize("summary", ["mean", "end", "last"])
def test_text_summaries_replace_the_start_token(summary):
    encoder = roberta()
    made = features()
    inputs = {k: made[k] for k in ("token_ids", "padding_mask")}
    plain = array(run(kbt.Tower(encoder, (-1,)), inputs)[0])
    got = array(run(kbt.Tower(encoder, (-1,), summary=summary), inputs)[0])
    assert difference(got[:, 1:], plain[:, 1:]) == 0
    for row, state, mask in zip(got, plain, made["padding_mask"], strict=True):
        count = int(mask.sum())
        expected = {
            "mean": state[:count].mean(0),
            "end": state[count - 1],
            "last": state[-1],
        }[summary]
        assert difference(row[0], expected) <= 1e-6


@LONG_ELSEWHERE
@pytest.mark.parametrize("summary", ["attention_pool", "learned"])
def test_image_summaries_are_saved_in_float32(summary, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        made = shallow(image_summary=summary, dtype="mixed_bfloat16")
    finally:
        keras.config.set_dtype_policy("float32")
    [weight] = [w for w in made.weights if "summary" in w.path]
    assert weight.dtype == "float32"
    assert run(made, features(made))["image"].shape == (3, 17, 16)
    made.save_to_preset(tmp_path / "preset")
    loaded = kbt.BridgeTowerBackbone.from_preset(tmp_path / "preset")
    assert loaded.image_tower.summary == summary
    assert_same_weights(made, loaded)


@ONE_BACKEND
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(
    "side, new, prefix", [(3, 5, 0), (18, 24, 1), (24, 14, 2), (4, 4, 1)]
)
def test_grid_is_resized_as_by_pytorch(side, new, prefix, antialias):
    rng = np.random.default_rng(0)
    # In float32 the peer itself is off by 7e-6.
    table = rng.normal(size=(prefix + side**2, 7))
    resized = resize_positions(table, prefix + new**2, antialias)
    np.testing.assert_array_equal(resized[:prefix], table[:prefix])
    grid = torch.tensor(table[prefix:].T.reshape(1, 7, side, side))
    expected = torch.nn.functional.interpolate(
        grid,
        size=(new, new),
        mode="bicubic",
        align_corners=False,
        antialias=antialias,
    )
    expected = expected.numpy().reshape(7, -1).T
    assert np.abs(resized[prefix:] - expected).max() <= 1e-12


@keras.saving.register_keras_serializable(package="test_positions")
class OwnImages(keras_hub.models.Backbone):
    """An encoder whose weights depend on the size, and are no tables."""

    patch_size = 8

    def __init__(self, image_shape=(32, 32, 3), **kwargs):
        images = keras.Input(image_shape, name="images")
        x = keras.layers.Conv2D(16, self.patch_size, self.patch_size)(images)
        x = keras.layers.LayerNormalization([1, 2, 3], name="places")(x)
        x = keras.layers.Reshape((-1, 16))(x)
        super().__init__(inputs=images, outputs=x, **kwargs)
        self.image_shape = image_shape

    def get_config(self):
        return {**super().get_config(), "image_shape": self.image_shape}


@kbt.hidden_states.register(OwnImages)
def own_states(encoder):
    return [encoder.output]


@FASTEST
def test_other_weights_are_not_resized():
    made = backbone(OwnImages(), num_layers=1)
    with pytest.raises(ValueError, match="tables of positions.*places/gamma"):
        made.with_image_size(64)


def merged_by_loops(states, count):
    """`merge_tokens` of one picture, one token at a time."""
    groups = [[i] for i in range(len(states[-1]))]
    while len(groups) > count:
        means = [states[-1][group].mean(0) for group in groups]
        units = [mean / np.linalg.norm(mean) for mean in means]
        others = range(2, len(groups), 2)
        best = []
        for one in range(1, len(groups), 2):
            cosines = [units[one] @ units[other] for other in others]
            best.append((max(cosines), one, others[int(np.argmax(cosines))]))
        best.sort(reverse=True)
        gone = set()
        for _, one, other in best[: len(groups) - count]:
            groups[other] += groups[one]
            gone.add(one)
        groups = [g for i, g in enumerate(groups) if i not in gone]
    return [np.stack([state[g].mean(0) for g in groups]) for state in states]


@pytest.mark.parametrize(
    "sizes", some_everywhere([(26, 6), (10, 4), (3, 2)], (10, 4))
)
def test_merged_as_by_loops(sizes):
    tokens, count = sizes
    rng = np.random.default_rng(tokens)
    shapes = (2, 3, tokens, 8)
    states = [*rng.normal(size=shapes).astype("float32")]
    found = merge_tokens(states, count)
    for row in range(3):
        wanted = merged_by_loops([state[row] for state in states], count)
        for state, expected in zip(found, wanted, strict=True):
            state = keras.ops.convert_to_numpy(state[row])
            np.testing.assert_allclose(state, expected, atol=1e-5)
