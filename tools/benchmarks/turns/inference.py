"""The works of inference: a forward pass, ranking, and answers.

Each takes `Saved` and `Contender`, loads the model, and returns a function
from batch and tokens to a turn: a function without arguments that returns a
float array `(rows, outputs)` in the processor's memory, so that an accelerator
is done. `peer_` begins the names of those of transformers.
"""

import runpy
from importlib.util import find_spec

import numpy as np

from turns.samples import ANSWERS
from turns.samples import TEXT
from turns.samples import features
from turns.samples import load_weights
from turns.works import RUNTIMES

MATCHING = "BridgeTowerForImageAndTextRetrieval"
# The scores of as many answers are compared.
BEST = 5


def forward(saved, contender):
    if contender.library in RUNTIMES:
        return _exported_forward(saved, contender)
    import keras_bridgetower as kbt

    task = kbt.BridgeTowerRetrieval.from_preset(
        str(saved.path("checkpoint")), preprocessor=None, dtype=contender.dtype
    )
    task.compile()

    def prepare(batch, tokens):
        x = features(batch, task.input["images"].shape[1], tokens)
        return lambda: np.asarray(task.predict_on_batch(x), "float32")

    return prepare


def peer_forward(saved, contender):
    import torch

    from turns.peers import Peer

    peer = Peer(saved.path("checkpoint"), contender.dtype, MATCHING)
    model = peer.model
    if contender.compiled:
        model = torch.compile(model)

    def prepare(batch, tokens):
        x = peer.arguments(features(batch, peer.side, tokens))

        @torch.inference_mode()
        def turn():
            return model(**x).logits.float().cpu().numpy()

        return turn

    return prepare


def _exported_forward(saved, contender):
    model = _loaded(saved, contender, "model")

    def prepare(batch, tokens):
        x = features(batch, saved.pixels(), tokens)
        return lambda: np.asarray(next(iter(model(x).values())), "float32")

    return prepare


def _loaded(saved, contender, name):
    """Load an exported file by a runtime, as `run.py` does, without Keras."""
    (folder,) = find_spec("keras_bridgetower").submodule_search_locations
    run = runpy.run_path(f"{folder}/models/exporting/runtime.py")
    path = saved.path(contender.file) / f"{name}.onnx"
    if contender.library == "openvino":
        precision = "bf16" if contender.dtype == "bfloat16" else "f32"
        model, _ = run["by_openvino"](path, precision=precision)
    else:
        model, _ = run["load"](path)
    return model


def ranking(saved, contender, image_tokens=None):
    """Match one text with pictures that have been encoded, as a search does.

    This package encodes the text and fuses all pairs; transformers runs each
    pair whole, all in one batch.
    """
    if contender.library in RUNTIMES:
        return _exported_ranking(saved, contender)
    from keras import ops

    import keras_bridgetower as kbt
    from keras_bridgetower.tasks.ranking import ranking_parts

    task = kbt.BridgeTowerRetrieval.from_preset(
        str(saved.path("checkpoint")),
        dtype=contender.dtype,
        image_tokens=image_tokens,
    )
    parts = ranking_parts(task)

    def prepare(batch, tokens):
        side = task.input["images"].shape[1]
        images, text = _pictures_and_text(batch, side, tokens)
        rows = np.arange(batch, dtype="int32")

        kept = parts.image({"images": images})["states"]

        def turn():
            logits = parts.pairs(
                {
                    "image": kept,
                    "text": parts.text(text)["states"],
                    "padding_mask": text["padding_mask"],
                    "image_rows": rows,
                    "text_rows": np.zeros_like(rows),
                }
            )
            return ops.convert_to_numpy(logits).astype("float32")[:, -1:]

        return turn

    return prepare


def _exported_ranking(saved, contender):
    parts = {
        name: _loaded(saved, contender, name)
        for name in ("text_tower", "image_tower", "fusion")
    }

    def prepare(batch, tokens):
        images, text = _pictures_and_text(batch, saved.pixels(), tokens)
        kept = parts["image_tower"]({"images": images})["states"]
        mask = np.repeat(text["padding_mask"], batch, 0)

        def turn():
            states = np.repeat(parts["text_tower"](text)["states"], batch, 0)
            inputs = {"text_states": states, "image_states": kept}
            found = parts["fusion"]({**inputs, "padding_mask": mask})
            return np.asarray(found["itm_logits"], "float32")[:, -1:]

        return turn

    return prepare


def peer_ranking(saved, contender):
    import torch

    from turns.peers import Peer

    peer = Peer(saved.path("checkpoint"), contender.dtype, MATCHING)

    def prepare(batch, tokens):
        images, text = _pictures_and_text(batch, peer.side, tokens)
        texts = {name: np.repeat(x, batch, 0) for name, x in text.items()}
        x = peer.arguments({"images": images, **texts})

        @torch.inference_mode()
        def turn():
            return peer.model(**x).logits[:, 1:].float().cpu().numpy()

        return turn

    return prepare


def _pictures_and_text(batch, side, tokens):
    x = features(batch, side, tokens)
    images = x.pop("images")
    return images, {name: values[:1] for name, values in x.items()}


def vqa_task(saved, **values):
    """Return `BridgeTowerVQA` with the saved head."""
    import keras_bridgetower as kbt

    task = kbt.BridgeTowerVQA.from_preset(
        str(saved.path("checkpoint")), answers=ANSWERS, **values
    )
    head = task.heads["vqa"]
    parts = head.hidden_dense, head.layer_norm, head.output_dense
    variables = [weight for part in parts for weight in part.weights]
    values = load_weights(saved.answers)
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return task


def answer(saved, contender):
    task = vqa_task(saved, dtype=contender.dtype)
    picture = str(saved.picture)

    def prepare(batch, tokens):
        images, texts = [picture] * batch, [TEXT] * batch
        return lambda: _scores(task.answer(images, texts, top_k=BEST))

    return prepare


def peer_answer(saved, contender):
    import torch
    import transformers
    from PIL import Image

    from turns.peers import Peer
    from turns.peers import QuestionAnswering

    folder = saved.path("checkpoint")
    peer = Peer(folder, contender.dtype)
    model = QuestionAnswering(saved, peer).eval()
    processor = transformers.BridgeTowerProcessor.from_pretrained(folder)

    def prepare(batch, tokens):
        @torch.inference_mode()
        def turn():
            images = [
                Image.open(saved.picture).convert("RGB") for _ in range(batch)
            ]
            x = processor(images, [TEXT] * batch, return_tensors="pt")
            x = x.to(peer.device, peer.dtype)
            best = model(**x).float().sigmoid().topk(BEST)
            # As a user gets them.
            rows = zip(best.values.tolist(), best.indices.tolist(), strict=True)
            return _scores(
                [(ANSWERS[i], score) for score, i in zip(*row, strict=True)]
                for row in rows
            )

        return turn

    return prepare


def _scores(rows):
    return np.array([[score for _, score in row] for row in rows])
