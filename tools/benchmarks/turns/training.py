"""The works of training: a step of pre-training or of question answering.

A turn returns the loss. To fetch it waits for the whole step: the step is one
program on JAX and TensorFlow, and PyTorch queues the optimizer's work before
the loss is read.
"""

import numpy as np

from turns.devices import forget_peak
from turns.devices import gpu_peak_bytes
from turns.devices import peak_bytes
from turns.samples import ANSWERS
from turns.samples import features

RATE = 1e-5
MASKED = 5  # tokens of each text
MASK_ID = 4
OBJECTIVES = ("mlm", "itm")


def pretraining(saved, contender):
    import keras_bridgetower as kbt
    from keras_bridgetower.training import AdamW

    task = kbt.BridgeTowerPretraining(
        _backbone(saved, contender), objectives=OBJECTIVES
    )
    # It decays all weights, as PyTorch's does.
    return _keras_steps(task, AdamW(RATE, decay=()))


def memory(saved, contender, recomputed=False):
    """Take the same step, and measure its memory.

    Gigabytes are those above the memory before the first step. On a GPU they
    are the peak of the process, weights included.
    """
    import keras

    import keras_bridgetower as kbt

    backbone = _backbone(saved, contender)
    if recomputed:
        backbone.checkpoint_activations()
    task = kbt.BridgeTowerPretraining(backbone, objectives=OBJECTIVES)
    # Without momentum, as the optimizer's memory is not measured.
    prepare = _keras_steps(task, keras.optimizers.SGD(RATE))

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


def _backbone(saved, contender):
    import keras_bridgetower as kbt

    return kbt.BridgeTowerBackbone.from_preset(
        str(saved.path("checkpoint")), dtype=contender.dtype
    )


def _keras_steps(task, optimizer):
    task.compile(optimizer)

    def prepare(batch, tokens):
        side = task.input["images"].shape[1]
        images, ids, masked, positions, match = _rows(batch, side, tokens)
        x = {
            "images": images,
            "token_ids": ids,
            "padding_mask": np.ones_like(ids),
            "masked_token_ids": masked,
            "mask_positions": positions,
            "match": match,
        }
        y = {"mlm": np.take_along_axis(ids, positions, 1), "itm": match}
        return _keras_step(task, x, y)

    return prepare


def _keras_step(task, x, y):
    def turn():
        logs = task.train_on_batch(x, y, return_dict=True)
        return np.array([[float(logs["loss"])]])

    return turn


def _rows(batch, side, tokens):
    """Return a batch of both objectives: half of the pairs match.

    A pair that does not match has the next row's picture.
    """
    x = features(batch, side, tokens)
    images, ids = x["images"], x["token_ids"]
    rng = np.random.default_rng(5)
    positions = np.stack(
        [rng.permutation(tokens)[:MASKED] for _ in range(batch)]
    )
    masked = ids.copy()
    np.put_along_axis(masked, positions, MASK_ID, 1)
    match = (np.arange(batch) % 2).astype("int32")
    return images, ids, masked, positions.astype("int32"), match


def peer_pretraining(saved, contender):
    """A plain loop over two models of transformers that share an encoder."""
    import torch

    from turns.peers import Peer

    names = "BridgeTowerForImageAndTextRetrieval", "BridgeTowerForMaskedLM"
    peer, filler = (
        Peer(saved.path("checkpoint"), contender.dtype, name) for name in names
    )
    matching, filling = peer.model.train(), filler.model.train()
    filling.bridgetower = matching.bridgetower
    models = matching, filling
    weights = {id(p): p for m in models for p in m.parameters()}
    optimizer = torch.optim.AdamW(weights.values(), RATE)

    def prepare(batch, tokens):
        images, ids, masked, positions, match = _rows(batch, peer.side, tokens)
        pixels, truth = peer.pictures(images), peer.integers(match)
        other = torch.where(
            truth.bool()[:, None, None, None], pixels, pixels.roll(-1, 0)
        )
        labels = np.full(ids.shape, -100, "int64")
        targets = np.take_along_axis(ids, positions, 1)
        np.put_along_axis(labels, positions, targets, 1)
        texts, blanks, labels, mask = map(
            peer.integers, (ids, masked, labels, np.ones_like(ids))
        )

        def turn():
            optimizer.zero_grad()
            filled = filling(
                input_ids=blanks,
                attention_mask=mask,
                pixel_values=pixels,
                labels=labels,
            )
            matched = matching(
                input_ids=texts,
                attention_mask=mask,
                pixel_values=other,
                labels=truth,
            )
            loss = filled.loss + matched.loss
            loss.backward()
            optimizer.step()
            return np.array([[float(loss)]])

        return turn

    return prepare


def vqa(saved, contender):
    from keras_bridgetower.training import AdamW
    from turns.inference import vqa_task

    task = vqa_task(saved, dtype=contender.dtype, preprocessor=None)
    task.compile(AdamW(RATE, decay=()))

    def prepare(batch, tokens):
        x = features(batch, task.input["images"].shape[1], tokens)
        return _keras_step(task, x, _soft_scores(batch))

    return prepare


def peer_vqa(saved, contender):
    import torch

    from turns.peers import Peer
    from turns.peers import QuestionAnswering

    peer = Peer(saved.path("checkpoint"), contender.dtype)
    model = QuestionAnswering(saved, peer).train()
    optimizer = torch.optim.AdamW(model.parameters(), RATE)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits

    def prepare(batch, tokens):
        x = peer.arguments(features(batch, peer.side, tokens))
        targets = torch.tensor(_soft_scores(batch)).to(peer.device)

        def turn():
            optimizer.zero_grad()
            logits = model(**x).float()
            loss = entropy(logits, targets, reduction="sum") / batch
            loss.backward()
            optimizer.step()
            return np.array([[float(loss)]])

        return turn

    return prepare


def _soft_scores(batch):
    """Return scores `(batch, answers)`: each row has three right answers."""
    rng = np.random.default_rng(11)
    scores = np.zeros((batch, len(ANSWERS)), "float32")
    for row in scores:
        row[rng.permutation(len(ANSWERS))[:3]] = 1.0, 0.6, 0.3
    return scores
