"""Masked language modeling and pre-training: labels, steps, filled texts."""

import every_task
import keras
import numpy as np
import pytest
from builders import LONG_ELSEWHERE
from builders import ONE_BACKEND
from builders import SIDE
from builders import array
from builders import assert_same_weights
from builders import difference
from builders import moved
from builders import randomise
from builders import raw
from builders import shallow
from builders import tokenizer
from keras import ops

import keras_bridgetower as kbt
from keras_bridgetower.preprocessing.pretraining import IGNORED
from keras_bridgetower.training.optim.adamw import AdamW

IDS = np.array([7, 8, 8, 9])


def preprocessor(**kwargs):
    return kbt.BridgeTowerPretrainingPreprocessor(
        tokenizer(), kbt.BridgeTowerImageConverter(SIDE), max_masks=6, **kwargs
    )


@ONE_BACKEND
def test_labels_belong_to_the_features():
    x, _ = raw(4)
    features, labels = preprocessor(rate=0.5)(x, y=IDS)
    assert labels["itc"].tolist() == IDS.tolist()
    np.testing.assert_array_equal(features["match"], labels["itm"])
    # Row 1 has the next row's image id: a match, whatever was drawn.
    assert labels["itm"][1] == 1
    for row in range(4):
        kept = labels["mlm"][row] != IGNORED
        places = features["mask_positions"][row][kept]
        np.testing.assert_array_equal(
            features["token_ids"][row][places], labels["mlm"][row][kept]
        )
        others = np.setdiff1d(np.arange(40), places)
        np.testing.assert_array_equal(
            features["token_ids"][row][others],
            features["masked_token_ids"][row][others],
        )
    changed = features["token_ids"] != features["masked_token_ids"]
    assert changed.sum() > 4
    # Without ids, equal pictures have equal ones.
    x["images"][2] = x["images"][0]
    ids = preprocessor()(x)[1]["itc"].tolist()
    assert ids[0] == ids[2] and len(set(ids)) == 3


@pytest.mark.parametrize(
    "values, unread",
    [
        (dict(objectives=("mlm", "itc")), True),
        (dict(objectives=("itc",), ways="three_way"), False),
    ],
)
@LONG_ELSEWHERE
def test_what_no_objective_reads_stays(values, unread):
    made = preprocessor(objectives=values["objectives"])
    model = kbt.BridgeTowerPretraining(
        shallow(), made, projection_dim=8, **values
    )
    # One step: to trace a graph would take longer.
    parts = dict(zip(values["objectives"], (1.0, 0.5), strict=False))
    model.compile(AdamW(1e-2), loss_weights=parts, run_eagerly=True)
    found = {}
    changed = moved(
        model, lambda: found.update(model.fit(raw(4)[0], verbose=0).history)
    )
    if len(parts) > 1:
        assert {f"{name}_accuracy" for name in parts} <= set(found)
        total = sum(part * found[f"{k}_loss"][0] for k, part in parts.items())
        assert found["loss"][0] == pytest.approx(total, rel=1e-4)
    assert changed == {w.path for w in model.trainable_weights}
    assert (len(changed) < len(variables(model))) == unread


class TwoPasses(kbt.BridgeTowerPretraining):
    """A forward pass for each objective, as the authors run it.

    Matching encodes its pictures again, although masked language has encoded
    them.
    """

    def outputs_of(self, inputs):
        own = ops.reshape(inputs["match"], (-1, 1, 1, 1)) == 1
        images = inputs["images"]
        paired = ops.where(own, images, ops.roll(images, -1, axis=0))
        masked = self.backbone.fuse(
            {**inputs, "token_ids": inputs["masked_token_ids"]}, ("text",)
        )
        positions = ops.expand_dims(inputs["mask_positions"], -1)
        states = ops.take_along_axis(masked["text"], positions, axis=1)
        pooled = self.backbone.fuse({**inputs, "images": paired}, ("pooled",))
        return {
            "mlm": self.heads["mlm"](states),
            "itm": self.heads["itm"](pooled["pooled"]),
        }


@LONG_ELSEWHERE
def test_a_step_equals_two_passes():
    """One image-tower pass gives the gradients of an own pass for each."""
    x, _ = raw(4)
    names = ("mlm", "itm")
    features, labels = preprocessor(objectives=names, rate=0.5)(x)
    # Two rows take the next one's picture, two keep their own.
    features["match"] = labels["itm"] = np.array([1, 0, 1, 0], "int32")
    both = shallow()
    shared = randomise(
        kbt.BridgeTowerPretraining(both, objectives=names), scale=0.1
    )
    apart = TwoPasses(both, objectives=names)
    start = [array(w) for w in variables(shared)]
    losses, moved = [], []
    for task in (shared, apart):
        for weight, value in zip(variables(task), start, strict=True):
            weight.assign(value)
        # A step of length one: the weights move by their gradients.
        task.compile(keras.optimizers.SGD(1.0), run_eagerly=True)
        losses.append(float(task.train_on_batch(features, labels)[0]))
        moved.append([array(w) for w in variables(task)])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert_same_weights(*moved, most=1e-5)
    steps = [difference(a, b) for a, b in zip(start, moved[0], strict=True)]
    assert np.median(steps) > 1e-4


def variables(task):
    return task.backbone.trainable_weights + task.heads.trainable_weights


@LONG_ELSEWHERE
def test_a_masked_language_head_of_another_epsilon_is_kept(tmp_path):
    model = randomise(kbt.BridgeTowerMaskedLM(shallow(), head_epsilon=1e-12))
    model.save_to_preset(tmp_path / "preset")
    with pytest.warns(UserWarning, match="takes features only"):
        copy = kbt.BridgeTowerPretraining.from_preset(
            tmp_path / "preset", objectives=("mlm",)
        )
    assert copy.new_heads.still_random(["mlm"]) == []
    assert copy.get_config()["head_epsilon"] == 1e-12
    x = np.random.default_rng(0).normal(size=(1, 2, 16)).astype("float32")
    outputs = [array(m.heads["mlm"](x)) for m in (model, copy)]
    np.testing.assert_array_equal(*outputs)


@ONE_BACKEND
def test_values_of_preprocessors_that_are_refused():
    for values, message in (
        (dict(objectives=("mlm", "vqa")), "must be some of"),
        (dict(objectives=("itm",), negatives="hard_negatives"), "have 'itc'"),
    ):
        with pytest.raises(ValueError, match=message):
            preprocessor(**values)
    with pytest.raises(ValueError, match="must be a batch"):
        preprocessor()({"images": raw(1)[0]["images"][0], "text": "one"})


@LONG_ELSEWHERE
def test_fill_mask_is_the_softmax_of_the_mask_token_s_logits():
    filler = randomise(every_task.make("masked_lm"))
    made, image = filler.preprocessor, np.zeros((20, 30, 3), "uint8")
    text = "is it <mask> or <mask>?"
    plain = made.tokenizer(["is it", " or", "?"])
    pieces = [row[(row > 4)].tolist() for row in plain]
    mask = made.tokenizer.mask_token_id
    ids = [0, *pieces[0], mask, *pieces[1], mask, *pieces[2], 2]
    padding = 24 - len(ids)
    places = np.flatnonzero(np.array(ids) == mask)
    features = {
        "images": made.image_converter([image]),
        "token_ids": np.array([ids + [1] * padding], "int32"),
        "padding_mask": np.array([[1] * len(ids) + [0] * padding], "int32"),
    }
    states = filler.backbone(features, training=False)["text"]
    logits = array(filler.heads["mlm"](states))[0, places]
    size = made.tokenizer.vocabulary_size()
    weights = np.exp(logits[:, :size].astype("float64"))
    shares = weights / weights.sum(-1, keepdims=True)
    masks, filled = filler.fill_mask(image, text, top_k=5)
    best = np.argsort(-shares, axis=-1)[:, :5]
    for found, row, order in zip(masks, shares, best, strict=True):
        np.testing.assert_allclose(
            [share for _, share in found], row[order], atol=1e-6
        )
        for (token, _), i in zip(found, order, strict=True):
            written = made.tokenizer.detokenize(np.array([i]))
            assert token == (written or made.tokenizer.id_to_token(i))
    ids = np.array(ids)
    ids[places] = best[:, 0]
    assert filled == made.tokenizer.detokenize(ids)
    # Texts with different numbers of masks.
    many = filler.fill_mask([image, image], [text, "<mask>!"], top_k=5)
    assert [len(found) for found, _ in many] == [2, 1]
    assert many[0][1] == filled
