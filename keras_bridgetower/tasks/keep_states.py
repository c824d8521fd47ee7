"""Keeps the states of a tower on disk, for training and ranking without it."""

import hashlib
import os
import pathlib
import weakref

import keras
import numpy as np

from keras_bridgetower.checks import check_choice
from keras_bridgetower.checks import check_count
from keras_bridgetower.models.towers import joined_states
from keras_bridgetower.preprocessing import kept_states
from keras_bridgetower.preprocessing.images import load_image
from keras_bridgetower.preprocessing.kept_states import KeptStates
from keras_bridgetower.preprocessing.state_files import KINDS
from keras_bridgetower.preprocessing.texts import checked_texts
from keras_bridgetower.preprocessing.verb_inputs import Pictures
from keras_bridgetower.preprocessing.verb_inputs import Texts
from keras_bridgetower.preprocessing.verb_inputs import list_pictures
from keras_bridgetower.tasks import identity
from keras_bridgetower.tasks.inference import joined

# Bytes of states that are written to one file.
_SEGMENT = 2**26


def keep(
    task, folder, items, side, kind, batch_size, variants, augment, verbose
):
    """Write states of items that the folder does not hold yet.

    Args:
        side: `"image"` or `"text"`.
        items: pictures or texts.
        Others are those of `BridgeTowerTask.keep_states`.

    Returns:
        `KeptStates` of the items.
    """
    check_choice("kind", kind, KINDS)
    check_count("batch_size", batch_size)
    if (variants > 0) != (augment is not None) or side == "text" and variants:
        raise ValueError(
            "`variants` needs `images` and a function as `augment`. Received: "
            f"variants={variants!r}, augment={augment!r}"
        )
    listed = list_pictures if side == "image" else checked_texts
    items, _ = listed(items)
    if not items:
        raise ValueError(
            f"`{side}s` must hold at least one item. Received: {side}s=[]"
        )
    wanted = describe(task, side, kind, variants)
    kept_states.begin(folder, wanted)
    files = kept_states.files_of(folder, wanted)
    forward = _forward(task, side)
    sums, waiting = [], {}
    step = max(batch_size, _SEGMENT // files.format.row_bytes)
    bar = keras.utils.Progbar(len(items), verbose=verbose, unit_name=side)
    for number, item in enumerate(items, 1):
        for variant in range(variants + 1):
            sums.append(_checksum(item, variant, side))
            if sums[-1] not in files.known:
                waiting[sums[-1]] = item, variant
        if waiting and (len(waiting) >= step or number == len(items)):
            made = [_made(*x, augment) for x in waiting.values()]
            source = _source(task, side, made)
            with task.inference.read_lock("keep_states"):
                states = joined(
                    task.inference.in_batches(forward, [source], batch_size)
                )
            files.add(list(waiting), states)
            waiting = {}
        bar.update(number)
    kept_states.finish(folder, sums)
    states = KeptStates(folder)
    states.checked_for = weakref.ref(task)
    return states


def describe(task, side, kind, variants):
    """Return as plain values what kept states are of."""
    backbone, preprocessor = task.backbone, task.needed_preprocessor()
    tower = getattr(backbone, f"{side}_tower")
    settings = (
        identity.picture_settings
        if side == "image"
        else (identity.text_settings)
    )
    sums = "".join(identity.weight_sums(tower.weights))
    widths = [x.shape[-1] for x in tower.outputs]
    tokens = tower.outputs[-1].shape[1]
    if side == "text":
        tokens = preprocessor.tokenizer.sequence_length
    return {
        "format": 1,
        "side": side,
        "kind": kind,
        "shape": [tokens, sum(widths)],
        "widths": widths,
        "weights": hashlib.sha256(sums.encode()).hexdigest(),
        "dtype": tower.dtype_policy.name,
        "taps": list(tower.taps),
        "summary": tower.summary,
        "positions": tower.positions,
        "variants": variants,
        **settings(preprocessor),
    }


def check(task, states):
    """Reject states that are not of a task's tower.

    Raises:
        ValueError: it names what differs.
    """
    own = states.identity
    wanted = describe(task, own["side"], own["kind"], own["variants"])
    kept_states.check_same(own, wanted, states.folder)
    states.checked_for = weakref.ref(task)


def _forward(task, side):
    """Return the compiled function from features to joined states."""
    tower = getattr(task.backbone, f"{side}_tower")

    def image(inputs):
        return joined_states(tower(inputs["images"]))

    def text(inputs):
        states = joined_states(tower({k: inputs[k] for k in tower.input}))
        mask = keras.ops.cast(inputs["padding_mask"], "float32")
        # Where all states are 0 there is padding.
        return states * mask[:, :, None]

    made = {"image": image, "text": text}[side]
    name = f"states of the {side} tower"
    return task.inference.cached(name, lambda: task.inference.forward(made))


def _source(task, side, items):
    cls = Pictures if side == "image" else Texts
    return cls(task.needed_preprocessor(), items)


def _made(item, variant, augment):
    """Return an item, or an augmented variant that is always the same."""
    if not variant:
        return item
    return augment(load_image(item), np.random.default_rng(variant))


def _checksum(item, variant, side):
    """Return the SHA-256 of an item's content and of the variant's number."""
    found = hashlib.sha256(f"{variant}:".encode() if variant else b"")
    if side == "text":
        found.update(item.encode())
    elif isinstance(item, (bytes, bytearray, memoryview)):
        found.update(item)
    elif isinstance(item, (str, os.PathLike)):
        found.update(pathlib.Path(item).read_bytes())
    else:
        pixels = load_image(item)
        found.update(f"{pixels.shape}".encode() + pixels.tobytes())
    return found.hexdigest()


def separate(task, x, trains=False, reads_weights=True):
    """Separate kept states from other inputs, and check that they fit.

    Args:
        task: the task.
        x: dict of raw inputs.
        trains: bool, whether the task is trained on them.
        reads_weights: bool, False within a pass of Keras, which on JAX has
            taken the weights: the states must have been checked before.

    Returns:
        As `kept_states.separate`.

    Raises:
        ValueError: states of another tower, or of one that would be trained.
    """
    x, kept = kept_states.separate(x)
    for side, states in kept.items():
        if reads_weights:
            check(task, states)
        elif states.checked_for() is not task:
            raise ValueError(
                "Batches must have states that `keep_states` of this task has "
                "returned: call it again, which computes nothing twice. "
                f"Received: {str(states.folder)!r}"
            )
        if trains and getattr(task.backbone, f"{side}_tower").trainable_weights:
            raise ValueError(
                f"The {side} tower must be frozen to train on its states: set "
                f"`task.backbone.{side}_tower.trainable = False` before "
                f"`compile`. Received: states of {str(states.folder)!r}"
            )
    if "text" in kept and task.backbone.fusion.reads_padding:
        raise ValueError(
            "`text` must be texts for an adaptive manager, which reads the "
            f"states of padding. Received: {kept['text'].folder}"
        )
    return x, kept


def restore(task, x, kept, draws=False):
    """Read the states of rows that `separate` has numbered.

    For a task without a preprocessor they become features.
    """
    x = kept_states.restore(x, kept, draws)
    if task.preprocessor is None:
        x.pop("step", None)
        if "image_states" in x:
            x["images"] = x.pop("image_states")
        if "text_states" in x:
            made = kept_states.text_features(x.pop("text_states"))
            x |= {k: v for k, v in made.items() if k in task.input}
    return x
