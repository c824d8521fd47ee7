"""Train the fusion and the heads from kept states; the towers rest."""

import keras
from keras import ops

from keras_bridgetower.objectives import losses
from photo_world.training.batches import MASKED
from photo_world.training.batches import QUESTIONS

WEIGHTS = {"vqa": 1.0, "list": 1.0, "itm": 1.0, "mlm": 0.3}
# Wrong pictures in the list of a caption.
LISTED = 1


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
            n: keras.metrics.Mean(name=n) for n in ("vqa", "list", "itm", "mlm")
        }
        self.built = True

    def call(self, x, training=None):
        names = ("token_ids", "padding_mask", "segment_ids")
        mask = x["padding_mask"]
        told = self.text_tower({n: x[n] for n in names}, training=False)
        image = [
            ops.cast(x[f"state_{i}"], told[0].dtype) for i in range(len(told))
        ]
        count = image[0].shape[0]
        other = self._others(told, image, x["apart"])
        texts = self.fusion.project_text(told)
        images = self.fusion.project_image(image)
        own = ops.arange(count)
        asked = ops.arange(2 * count, 2 * count + QUESTIONS * count)
        # Captions: own picture, then others; wrong ones: own; questions: own.
        text_rows = ops.concatenate(
            [own] * (1 + LISTED) + [own + count, asked], axis=0
        )
        image_rows = ops.concatenate(
            [own, *other, own, ops.repeat(own, QUESTIONS)], axis=0
        )
        pooled = self.fusion.join(
            [ops.take(t, text_rows, axis=0) for t in texts],
            [ops.take(i, image_rows, axis=0) for i in images],
            ops.take(mask, text_rows, axis=0),
            outputs=("pooled",),
            training=training,
        )["pooled"]
        last = 2 * count + QUESTIONS * count
        filled = self.fusion.join(
            [t[last:] for t in texts],
            [i[:MASKED] for i in images],
            mask[last:],
            outputs=("text",),
            training=training,
        )["text"]
        places = ops.expand_dims(x["places"], -1)
        pairs = (2 + LISTED) * count
        return {
            "itm": self.heads["itm"](pooled[:pairs]),
            "vqa": self.heads["vqa"](pooled[pairs:]),
            "mlm": self.heads["mlm"](ops.take_along_axis(filled, places, 1)),
        }

    def _others(self, told, image, apart):
        """Return for each caption the most similar pictures it is false of."""
        count = image[0].shape[0]
        vectors = self.itc(
            {"text": told[-1][:count, 0], "image": image[-1][:, 0]}
        )
        near = ops.matmul(vectors["text"], ops.transpose(vectors["image"]))
        near = ops.where(apart > 0, near, near - 4.0)
        found = ops.top_k(near, LISTED)[1]
        return [found[:, i] for i in range(LISTED)]

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        logits = y_pred["itm"]
        count = logits.shape[0] // (2 + LISTED)
        match = ops.reshape(logits[:, 1] - logits[:, 0], (-1, count))
        # Each caption, with its own picture and others, by the logit that
        # search ranks by.
        listed = ops.reshape(logits[:, 1], (-1, count))
        listed = ops.transpose(listed[: 1 + LISTED])
        right = ops.concatenate(
            [ops.ones((count,)), ops.zeros((logits.shape[0] - count,))], axis=0
        )
        flat = ops.reshape(match, (-1,))
        itm = ops.binary_crossentropy(right, flat, from_logits=True)
        true = ops.reshape(itm, (-1, count))
        found = {
            "vqa": losses.VQALoss()(y["vqa"], y_pred["vqa"]),
            "list": -ops.mean(ops.log_softmax(listed, -1)[:, 0]),
            # Right, and false in one respect; others weigh less.
            "itm": ops.mean(true[0] + true[-1]) / 2 + ops.mean(true[1:-1]) / 2,
            "mlm": losses.MaskedLMLoss()(y["mlm"], y_pred["mlm"]),
        }
        self._note(y, y_pred, listed, match)
        return sum(WEIGHTS[name] * loss for name, loss in found.items())

    def _note(self, y, y_pred, listed, match):
        best = ops.argmax(y_pred["vqa"], -1)[:, None]
        told = ops.take_along_axis(y["vqa"], best, 1)
        self.rates["vqa"].update_state(told)
        self.rates["list"].update_state(ops.argmax(listed, -1) == 0)
        pairs = ops.concatenate([match[0] > 0, match[-1] < 0], axis=0)
        self.rates["itm"].update_state(ops.cast(pairs, "float32"))
        given = ops.cast(ops.argmax(y_pred["mlm"], -1), "int32")
        self.rates["mlm"].update_state(given == y["mlm"], y["mlm"] >= 0)

    @property
    def metrics(self):
        return [*super().metrics, *self.rates.values()]

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return {metric.name: metric.result() for metric in self.metrics}
