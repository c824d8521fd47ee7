"""The works of this package.

Each function takes `Saved` and `Contender`, loads the model, and returns a
function from batch and tokens to a turn. A turn has no arguments and returns a
float array `(rows, outputs)` in the processor's memory, or the loss of a step,
so that an accelerator is done. `peers` and `runtimes` have the same functions.
"""

import pathlib

import keras
import numpy as np
from keras import ops

import keras_bridgetower as kbt
from keras_bridgetower.presets import registry
from keras_bridgetower.tasks.ranking import ranking_parts
from keras_bridgetower.training import AdamW
from turns import samples
from turns.devices import forget_peak
from turns.devices import gpu_peak_bytes
from turns.devices import peak_bytes


def forward(saved, contender):
    task = _opened(
        kbt.BridgeTowerRetrieval, saved, contender, preprocessor=None
    )
    task.compile(jit_compile=contender.compiled or "auto")

    def prepare(batch, tokens):
        x = samples.features(batch, _side(task), tokens)
        return lambda: np.asarray(task.predict_on_batch(x), "float32")

    return prepare


def ranking(saved, contender, image_tokens=None):
    """Match one text with pictures that have been encoded, as a search does.

    Encodes the text and fuses all pairs; transformers runs each pair whole.
    """
    task = _opened(
        kbt.BridgeTowerRetrieval, saved, contender, image_tokens=image_tokens
    )
    parts = ranking_parts(task)

    def prepare(batch, tokens):
        images, text = samples.pictures_and_text(batch, _side(task), tokens)
        kept = parts.image({"images": images})["states"]

        def turn():
            states = parts.text(text)["states"]
            logits = parts.pairs(
                {
                    "image": kept,
                    "text": ops.repeat(states, batch, axis=0),
                    "padding_mask": np.repeat(text["padding_mask"], batch, 0),
                }
            )
            return ops.convert_to_numpy(logits).astype("float32")[:, -1:]

        return turn

    return prepare


def answer(saved, contender):
    task, picture = _vqa_task(saved, contender), str(saved.picture)

    def prepare(batch, tokens):
        images, texts = [picture] * batch, [samples.TEXT] * batch
        return lambda: samples.scores(
            task.answer(images, texts, top_k=samples.BEST)
        )

    return prepare


def pretraining(saved, contender):
    task = _pretraining_task(saved, contender)
    # It decays all weights, as PyTorch's does.
    return _pretraining_steps(task, AdamW(samples.RATE, decay=()))


def memory(saved, contender, recomputed=False):
    """Take the same step, and measure its memory.

    Gigabytes are those above the memory before the first step. On a GPU they
    are the peak of the process, weights included.
    """
    task = _pretraining_task(saved, contender, recomputed)
    # Without momentum, as the optimizer's memory is not measured.
    prepare = _pretraining_steps(task, keras.optimizers.SGD(samples.RATE))

    def prepare_measured(batch, tokens):
        before = forget_peak()
        step = prepare(batch, tokens)

        def turn():
            forget_peak()
            return step()

        def measured():
            used = gpu_peak_bytes(contender) or peak_bytes() - before
            return {"gigabytes": used / 1e9}

        turn.measured = measured
        return turn

    return prepare_measured


def vqa(saved, contender):
    task = _vqa_task(saved, contender, preprocessor=None)
    task.compile(AdamW(samples.RATE, decay=()))

    def prepare(batch, tokens):
        x = samples.features(batch, _side(task), tokens)
        return _step(task, x, samples.soft_scores(batch))

    return prepare


def opener(folder):
    """Return functions that open a model and return its weight file."""

    def open_model():
        backbone = kbt.BridgeTowerBackbone.from_preset(folder)
        return backbone.predict_on_batch, backbone.input["images"].shape[1]

    return open_model, lambda: pathlib.Path(
        registry.resolve(folder), "model.weights.h5"
    )


def _opened(cls, saved, contender, **values):
    folder = str(saved.path("checkpoint"))
    return cls.from_preset(folder, dtype=contender.dtype, **values)


def _side(task):
    return task.input["images"].shape[1]


def _vqa_task(saved, contender, **values):
    """Return `BridgeTowerVQA` with the saved head."""
    task = _opened(
        kbt.BridgeTowerVQA, saved, contender, answers=samples.ANSWERS, **values
    )
    head = task.heads["vqa"]
    parts = head.hidden_dense, head.layer_norm, head.output_dense
    variables = [weight for part in parts for weight in part.weights]
    values = samples.load_weights(saved.answers)
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return task


def _pretraining_task(saved, contender, recomputed=False):
    backbone = _opened(kbt.BridgeTowerBackbone, saved, contender)
    if recomputed:
        backbone.checkpoint_activations()
    return kbt.BridgeTowerPretraining(backbone, objectives=("mlm", "itm"))


def _pretraining_steps(task, optimizer):
    task.compile(optimizer)

    def prepare(batch, tokens):
        images, ids, masked, positions, match = samples.pretraining_rows(
            batch, _side(task), tokens
        )
        x = {
            "images": images,
            "token_ids": ids,
            "padding_mask": np.ones_like(ids),
            "masked_token_ids": masked,
            "mask_positions": positions,
            "match": match,
        }
        y = {"mlm": np.take_along_axis(ids, positions, 1), "itm": match}
        return _step(task, x, y)

    return prepare


def _step(task, x, y):
    def turn():
        logs = task.train_on_batch(x, y, return_dict=True)
        return np.array([[float(logs["loss"])]])

    return turn
