"""Keeps the states of a tower on disk, for training and ranking without it."""

import hashlib
import json
import os
import pathlib
import weakref

import keras
import numpy as np

from keras_bridgetower.checks import check_choice
from keras_bridgetower.checks import check_count
from keras_bridgetower.distribution import strategy
from keras_bridgetower.models.towers import joined_states
from keras_bridgetower.preprocessing import kept_states
from keras_bridgetower.preprocessing import state_files
from keras_bridgetower.preprocessing import verb_inputs
from keras_bridgetower.preprocessing.images import load_image
from keras_bridgetower.preprocessing.texts import checked_texts
from keras_bridgetower.tasks import identity
from keras_bridgetower.tasks.inference import joined

# Bytes of states that are written to one file.
_SEGMENT = 2**26
_NAMES = {"image": "images", "text": "text"}
_SOURCES = {"image": verb_inputs.Pictures, "text": verb_inputs.Texts}
_SETTINGS = {"image": identity.picture_settings, "text": identity.text_settings}


def keep(
    task, folder, items, side, kind, batch_size, variants, augment, verbose
):
    """Write states of items that the folder does not hold yet.

    Of several processes each writes the states of its share of the batches,
    and process 0 the list of all items.

    Args:
        side: `"image"` or `"text"`.
        items: pictures or texts, or a `Stream`.
        Others are those of `BridgeTowerTask.keep_states`.

    Returns:
        `KeptStates` of the items.
    """
    check_choice("kind", kind, state_files.KINDS)
    check_count("batch_size", batch_size)
    if (variants > 0) != (augment is not None) or side == "text" and variants:
        raise ValueError(
            "`variants` needs `images` and a function as `augment`. Received: "
            f"variants={variants!r}, augment={augment!r}"
        )
    count, read = _batches(side, items, batch_size)
    wanted = describe(task, side, kind, variants)
    ranks = strategy.current()
    ranks.by_chief(lambda: state_files.begin(folder, wanted))
    found = ranks.together(lambda: state_files.begin(folder, wanted))
    files = state_files.open_states(folder, found)
    # Read by all before one of them writes.
    known = ranks.together(files.sums)
    first, step, writes = ranks.index, ranks.processes, True
    if keras.config.backend() == "jax":
        # Its processes are one program, which computes each batch together.
        first, step, writes = 0, 1, ranks.is_chief
    own = range(first, count, step)
    most = max(batch_size, _SEGMENT // files.format.row_bytes)
    given = dict(answers=False, forward=_forward(task, side))
    bar = keras.utils.Progbar(
        len(own), verbose=verbose * ranks.is_chief, unit_name="batch"
    )

    def keep_own():
        sums, waiting, states = {}, [], []
        for done, number in enumerate(own, 1):
            batch = [
                _made(item, variant, augment)
                for item in read(number)
                for variant in range(variants + 1)
            ]
            sums[number] = [_checksum(item, side) for item in batch]
            content = dict(zip(sums[number], batch, strict=True))
            new = {sum: x for sum, x in content.items() if sum not in known}
            if new:
                known.update(new)
                waiting += new
                made = list(new.values())
                source = _SOURCES[side](task.needed_preprocessor(), made)
                batches = task.batches(
                    "keep_states", [source], batch_size, **given
                )
                states.append(joined(batches))
            if waiting and (len(waiting) >= most or done == len(own)):
                if writes:
                    files.add(waiting, np.concatenate(states))
                waiting, states = [], []
            bar.update(done)
        return json.dumps(sums)

    every = {}
    for part in ranks.gather_text(ranks.together(keep_own)):
        every |= json.loads(part)
    sums = [sum for number in range(count) for sum in every[f"{number}"]]
    ranks.by_chief(lambda: kept_states.finish(folder, sums))
    states = kept_states.KeptStates(folder)
    states.checked_for = weakref.ref(task)
    return states


def _batches(side, items, size):
    """Return the number of batches, and a function that reads one of them."""
    if hasattr(items, "steps_per_epoch"):
        return items.steps_per_epoch, lambda n: _read_stream(side, items, n)
    listed = verb_inputs.list_pictures if side == "image" else checked_texts
    items, _ = listed(items)
    if not items:
        raise ValueError(
            f"`{side}s` must hold at least one item. Received: {side}s=[]"
        )
    batches = range(0, len(items), size)
    return len(batches), lambda n: items[batches[n] : batches[n] + size]


def _read_stream(side, stream, number):
    """Return the pictures or texts of a batch; of pairs of pictures both."""
    x, *_ = keras.utils.unpack_x_y_sample_weight(stream.batch(number))
    name = _NAMES[side]
    raw = stream.preprocessor is None and stream.num_hosts == 1
    if not raw or name not in x or "second_text" in x:
        raise ValueError(
            f"`{side}s` must be a stream of raw batches that have {name!r}, "
            "without `num_hosts`: all processes get the same one. Received: "
            f"{stream} with {sorted(x)}"
        )
    if side == "text":
        return checked_texts(x[name])[0]
    return [*x[name].reshape(-1, *x[name].shape[-3:])]


def in_memory(task, images, batch_size):
    """Return `KeptStates` of pictures that no folder holds."""
    source = verb_inputs.Pictures(task.needed_preprocessor(), images)
    verb_inputs.check_numbers([source])
    batches = task.batches(
        *("image_states", [source], batch_size),
        answers=False,
        forward=_forward(task, "image"),
    )
    found = describe(task, "image")
    return kept_states.in_memory(joined(batches), found, task)


def describe(task, side, kind=None, variants=0):
    """Return as plain values what kept states are of."""
    backbone, preprocessor = task.backbone, task.needed_preprocessor()
    tower = getattr(backbone, f"{side}_tower")
    sums = "".join(identity.weight_sums(tower.weights))
    tokens = tower.outputs[-1].shape[1]
    if side == "text":
        tokens = preprocessor.tokenizer.sequence_length
    return {
        "format": 1,
        "side": side,
        "kind": kind,
        "shape": [tokens, sum(x.shape[-1] for x in tower.outputs)],
        "weights": hashlib.sha256(sums.encode()).hexdigest(),
        "dtype": tower.dtype_policy.name,
        "taps": list(tower.taps),
        "summary": tower.summary,
        "positions": tower.positions,
        "variants": variants,
        **_SETTINGS[side](preprocessor),
    }


def _forward(task, side):
    """Return the compiled function from features to joined states."""
    tower = getattr(task.backbone, f"{side}_tower")

    def states(inputs):
        if side == "image":
            return joined_states(tower(inputs["images"]))
        found = joined_states(tower(inputs))
        mask = keras.ops.cast(inputs["padding_mask"], "float32")
        # Where all states are 0 there is padding.
        return found * mask[:, :, None]

    name = f"states of the {side} tower"
    return task.inference.cached(name, lambda: task.inference.forward(states))


def _made(item, variant, augment):
    """Return an item, or an augmented variant that is always the same."""
    if not variant:
        return item
    return augment(load_image(item), np.random.default_rng(variant))


def _checksum(item, side):
    """Return the SHA-256 of an item's content."""
    found = hashlib.sha256()
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
        `(x, kept)`: the inputs with the numbers of their rows, as
        `"image_rows"` and `"text_rows"`, and a dict of the `KeptStates`.

    Raises:
        ValueError: states of another tower, or of one that would be trained.
    """
    x, kept = dict(x), {}
    for side, name in _NAMES.items():
        states = x.get(name)
        if not isinstance(states, kept_states.KeptStates):
            continue
        _check(task, side, name, states, reads_weights)
        if trains and getattr(task.backbone, f"{side}_tower").trainable_weights:
            raise ValueError(
                f"The {side} tower must be frozen to train on its states: set "
                f"`task.backbone.{side}_tower.trainable = False` before "
                f"`compile`. Received: states of {str(states.folder)!r}"
            )
        kept[side] = states
        x[f"{side}_rows"] = x.pop(name).rows
    return x, kept


def check_sources(task, sources):
    """Check that kept states among the sources of a verb fit its task.

    Args:
        task: the task.
        sources: list of `Features` and `Pictures`.

    Raises:
        ValueError: states of another tower.
    """
    for source in sources:
        for side in _NAMES:
            states = getattr(source, f"{side}s", None)
            if isinstance(states, kept_states.KeptStates):
                _check(task, side, source.name, states)


def _check(task, side, name, states, reads_weights=True):
    own = states.identity
    if own["side"] != side:
        raise ValueError(
            f"`{name}` must be states of the {side} tower. Received: those of "
            f"the {own['side']} tower, in {str(states.folder)!r}"
        )
    if reads_weights:
        wanted = describe(task, side, own["kind"], own["variants"])
        state_files.check_same(own, wanted, states.folder or "image_states")
        states.checked_for = weakref.ref(task)
    elif states.checked_for() is not task:
        raise ValueError(
            f"`{name}` must be states that `keep_states` or `image_states` of "
            "this task has returned: call it again; `keep_states` computes "
            f"nothing twice. Received: states of {str(states.folder)!r}"
        )
    if side == "text" and task.backbone.fusion.reads_padding:
        raise ValueError(
            f"`{name}` must be texts for an adaptive manager, which reads the "
            f"states of padding. Received: states of {str(states.folder)!r}"
        )


def restore(task, x, kept, draws=False):
    """Read the states of rows that `separate` has numbered.

    Args:
        task: the task. Without a preprocessor they become features.
        x: dict of inputs, also of tensors in a graph of `tf.data`.
        kept: dict of `KeptStates`.
        draws: bool, whether variants are drawn, by `x["step"]`.

    Returns:
        dict with `"image_states"` and `"text_states"` float32
        `(..., tokens, width)`.
    """
    x = dict(x)
    for side, states in kept.items():
        step = x["step"] if draws and states.identity["variants"] else None
        rows = x.pop(f"{side}_rows")
        x[f"{side}_states"] = kept_states.read_rows(states, rows, step)
    if task.preprocessor is None:
        x.pop("step", None)
        if "image_states" in x:
            x["images"] = x.pop("image_states")
        if "text_states" in x:
            made = kept_states.text_features(x.pop("text_states"))
            x |= {k: v for k, v in made.items() if k in task.input}
    return x
