r"""Add a layer to a trained fusion, and make it see colors and places.

    python -m keras_bridgetower_photos.training.deepening \
        runs/photos runs/photos/settled runs/deeper/start

The new layer begins as the identity, so the fusion returns what it did before.
Beside what a place shows, its color and where it is are made larger: what is
small is lost in layer norms. Train on by the stages of `train` in the new run.
"""

import argparse
import pathlib

import numpy as np
from keras import ops
from keras_bridgetower_drawings.training.emoji.model import Together

import keras_bridgetower as kbt
from keras_bridgetower_photos.training import model
from keras_bridgetower_photos.training.pools import Pool

SCENES = 64  # By which sizes are measured.
# Standard deviations over that of all that a projection returns.
COLORED, PLACED = 0.33, 0.3


def deepen(vqa, pairs, pool, seed=0):
    """Return two tasks on one fusion with a layer more.

    Args:
        vqa, pairs: tasks that share a backbone, as `train.tasks_of` opens them.
        pool: `Pool` of training.
        seed: int, draws scenes and the directions of colors.
    """
    old, rng = vqa.backbone, np.random.default_rng(seed)
    config = old.get_config()
    deeper = {n: [*config[n], None] for n in ("taps", "image_taps")}
    deeper["num_layers"] = config["num_layers"] + 1
    new = kbt.BridgeTowerBackbone.from_config(config | deeper)
    for name in ("text_tower", "image_tower"):
        getattr(new, name).set_weights(getattr(old, name).get_weights())
    rows = rng.permutation(len(pool.rows))[:SCENES]
    states = [np.asarray(x[rows], "float32") for x in pool.states]
    given = model.text_features(
        pairs.preprocessor.tokenizer,
        [pool.rows[row]["questions"][0][0] for row in rows],
    )
    joined = old.fusion(
        old.text_tower(given),
        states,
        padding_mask=given["padding_mask"],
        outputs=("text", "image"),
    )
    known = {w.path: ops.convert_to_numpy(w) for w in old.fusion.weights}
    for weight in new.fusion.weights:
        if weight.path in known:
            weight.assign(known[weight.path])
    last = config["num_layers"]
    for side, here in (
        ("text", given["padding_mask"].astype(bool)),
        ("image", slice(None)),
    ):
        tokens = ops.convert_to_numpy(joined[side])[here]
        _begin_as_identity(new.fusion, known, side, last, tokens)
    for layer, x in zip(new.fusion.image_projections, states, strict=True):
        _enlarge(layer, x[:, 1:], rng)
    pairs_on_new = kbt.BridgeTowerPretraining(
        new, pairs.preprocessor, projection_dim=model.SPACE
    )
    vqa_on_new = kbt.BridgeTowerVQA(new, vqa.preprocessor)
    for task, other in ((vqa_on_new, vqa), (pairs_on_new, pairs)):
        for name in other.heads:
            task.heads[name].set_weights(other.heads[name].get_weights())
    return vqa_on_new, pairs_on_new


def _begin_as_identity(fusion, known, side, last, tokens):
    """Start a layer as the one before, whose residual branches add nothing.

    Its norms keep the mean and the standard deviation of the tokens.
    """
    for weight in fusion.weights:
        path = weight.path
        if f"layer_{last}/layer_{last}_{side}/" not in path:
            continue
        values = known[path.replace(f"layer_{last}", f"layer_{last - 1}")]
        if "attention_output/" in path or "output_dense/" in path:
            values = np.zeros_like(values)
        if "_norm/gamma" in path:
            values = np.full_like(values, tokens.std(-1).mean())
        if "_norm/beta" in path:
            values = np.full_like(values, tokens.mean())
        weight.assign(values)


def _enlarge(layer, x, rng):
    """Enlarge what a projection returns of the color and of the place."""
    kernel = ops.convert_to_numpy(layer.kernel).copy()
    bias = ops.convert_to_numpy(layer.bias).copy()
    size = (x @ kernel + bias).std((0, 1)).mean()
    places = slice(-model.COORDINATES, None)
    colors = slice(-model.COORDINATES - model.COLORS, -model.COORDINATES)
    added = rng.normal(size=(model.COLORS, kernel.shape[1]))
    added -= added.mean(1, keepdims=True)  # A layer norm would remove it.
    added *= COLORED * size / (x[..., colors] @ added).std((0, 1)).mean()
    kernel[colors] += added
    bias -= x[..., colors].mean((0, 1)) @ added
    before = (x[..., places] @ kernel[places]).std((0, 1)).mean()
    kernel[places] *= max(1, PLACED * size / before)
    layer.kernel.assign(kernel)
    layer.bias.assign(bias)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("run", "preset", "target"):
        parser.add_argument(name, type=pathlib.Path)
    given = parser.parse_args()
    pairs = kbt.BridgeTowerPretraining.from_preset(given.preset)
    vqa = model.vqa_on(pairs.backbone, given.preset)
    pool = Pool(given.run / "pools/train_0")
    Together(*deepen(vqa, pairs, pool)).save_to_preset(given.target)


if __name__ == "__main__":
    main()
