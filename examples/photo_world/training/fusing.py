"""Train the fusion and the heads from kept states; the towers rest."""

import keras
from keras import ops

from keras_bridgetower.objectives import losses
from photo_world.training.aligning import SHARPNESS
from photo_world.training.batches import MASKED
from photo_world.training.batches import OUTLIERS
from photo_world.training.batches import QUESTIONS

WEIGHTS = {"vqa": 1.0, "list": 1.0, "mlm": 0.3}
# Wrong pictures in the list of a caption.
LISTED = 2


class Fusion(keras.Model):
    """Questions, lists of pictures, matching and masked words.

    Args:
        vqa, pairs: tasks that share a backbone.
    """

    def __init__(self, vqa, pairs):
        super().__init__()
        backbone = vqa.backbone
        self.text_tower, self.fusion = backbone.text_tower, backbone.fusion
        self.text_tower.trainable = False
        self.itc = pairs.heads["itc"]
        self.itc.trainable = False
        self.heads = {n: pairs.heads[n] for n in ("itm", "mlm")}
        self.heads["vqa"] = vqa.heads["vqa"]
        self.rates = {
            n: keras.metrics.Mean(name=n)
            for n in ("vqa", "list", "near", "mlm")
        }
        self.built = True

    def call(self, x, training=None):
        names = ("token_ids", "padding_mask", "segment_ids")
        mask = x["padding_mask"]
        told = self.text_tower({n: x[n] for n in names}, training=False)
        image = [ops.cast(x[f"state_{i}"], t.dtype) for i, t in enumerate(told)]
        count = image[0].shape[0] - OUTLIERS
        other, near = self._others(told, image, x["apart"])
        texts = self.fusion.project_text(told)
        images = self.fusion.project_image(image)
        own = ops.arange(count)
        wrong, asked = own + count, ops.arange(QUESTIONS * count) + 2 * count
        strange = ops.arange(OUTLIERS) + count
        # Rows of texts and of pictures.
        pairs = [
            *((own, own), *((own, rows) for rows in other), (wrong, own)),
            (own[:OUTLIERS], strange),
            (asked, ops.repeat(own, QUESTIONS)),
            (asked[:OUTLIERS], strange),
        ]
        text_rows, image_rows = map(ops.concatenate, zip(*pairs, strict=True))
        pooled = self.fusion.join(
            [ops.take(t, text_rows, axis=0) for t in texts],
            [ops.take(i, image_rows, axis=0) for i in images],
            ops.take(mask, text_rows, axis=0),
            outputs=("pooled",),
            training=training,
        )["pooled"]
        filled = self.fusion.join(
            [t[-MASKED:] for t in texts],
            [i[:MASKED] for i in images],
            mask[-MASKED:],
            outputs=("text",),
            training=training,
        )["text"]
        places = ops.expand_dims(x["places"], -1)
        asked = QUESTIONS * count + OUTLIERS
        return {
            "list": self.heads["itm"](pooled[:-asked]),
            "near": near,
            "vqa": self.heads["vqa"](pooled[-asked:]),
            "mlm": self.heads["mlm"](ops.take_along_axis(filled, places, 1)),
        }

    def _others(self, told, image, apart):
        """Return for each caption the most similar pictures it is false of.

        Then the similarity `(1 + LISTED, captions)` of its own picture and of
        these.
        """
        count = image[0].shape[0] - OUTLIERS
        vectors = self.itc(
            {"text": told[-1][:count, 0], "image": image[-1][:count, 0]}
        )
        near = ops.matmul(vectors["text"], ops.transpose(vectors["image"]))
        found = ops.top_k(ops.where(apart > 0, near, near - 4.0), LISTED)[1]
        own = ops.expand_dims(ops.arange(count), 1)
        listed = ops.concatenate([own, ops.cast(found, own.dtype)], axis=1)
        near = ops.transpose(ops.take_along_axis(near, listed, axis=1))
        return [found[:, i] for i in range(LISTED)], near

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        found = {
            "vqa": losses.VQALoss()(y["vqa"], y_pred["vqa"]),
            "list": _list_loss(y_pred["list"], y_pred["near"]),
            "mlm": losses.MaskedLMLoss()(y["mlm"], y_pred["mlm"]),
        }
        self._note(y, y_pred)
        return sum(WEIGHTS[name] * loss for name, loss in found.items())

    def _note(self, y, y_pred):
        best = ops.argmax(y_pred["vqa"], -1)[:, None]
        told = ops.take_along_axis(y["vqa"], best, 1)
        self.rates["vqa"].update_state(told[:-OUTLIERS])
        right = ops.argmax(_listed(y_pred["list"], y_pred["near"]), 0) == 0
        self.rates["list"].update_state(right)
        near = ops.argmax(y_pred["near"], 0) == 0
        self.rates["near"].update_state(near)
        given = ops.cast(ops.argmax(y_pred["mlm"], -1), "int32")
        self.rates["mlm"].update_state(given == y["mlm"], y["mlm"] >= 0)

    @property
    def metrics(self):
        return [*super().metrics, *self.rates.values()]

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return {metric.name: metric.result() for metric in self.metrics}


def _listed(logits, near):
    """Return the scores of lists: what matching adds to the similarity."""
    scores = ops.reshape(logits[:-OUTLIERS, 1], (2 + LISTED, -1))
    return scores[: 1 + LISTED] + SHARPNESS * near


def _list_loss(logits, near):
    """Return the loss of the lists of pictures, and of each pair by itself.

    Args:
        logits: float `((2 + LISTED) * rows + OUTLIERS, 2)`: first those of the
            right pairs, then of `LISTED` wrong pictures, then of wrong
            captions, and of pictures that show nothing of the world.
        near: float `(1 + LISTED, rows)`, the similarities of the first.
    """
    margins = logits[:, 1] - logits[:, 0]
    strange = ops.mean(ops.softplus(margins[-OUTLIERS:]))
    margins = ops.reshape(margins[:-OUTLIERS], (2 + LISTED, -1))
    right = ops.softplus(-margins[0])
    wrong = ops.mean(ops.softplus(margins[1:]), 0)
    listed = ops.log_softmax(_listed(logits, near), 0)[0]
    return ops.mean((right + wrong) / 2 - listed) + 0.25 * strange
