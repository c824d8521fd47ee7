"""Train the fusion and the heads from kept states; the towers are frozen."""

from keras import ops
from keras_bridgetower_drawings.training.emoji.model import Rated

from keras_bridgetower.objectives import losses
from keras_bridgetower_photos.training.aligning import SHARPNESS
from keras_bridgetower_photos.training.batches import CAPTIONS
from keras_bridgetower_photos.training.batches import OUTLIERS
from keras_bridgetower_photos.training.batches import QUESTIONS
from keras_bridgetower_photos.training.batches import SHORT
from keras_bridgetower_photos.training.lists import LISTS
from keras_bridgetower_photos.training.lists import WRONG

WEIGHTS = {"vqa": 1.0, "match": 1.0, "list": 1.0, "mlm": 0.3}


class Fusion(Rated):
    """Learns questions, lists of pictures, matching and masked words."""

    pair_heads = ("itm", "mlm")
    rated = ("vqa", "match", "list", "near", "mlm")

    def __init__(self, vqa, pairs):
        super().__init__(self.rated)
        backbone = vqa.backbone
        self.text_tower, self.fusion = backbone.text_tower, backbone.fusion
        self.text_tower.trainable = False
        self.itc = pairs.heads["itc"]
        self.itc.trainable = False
        self.heads = {n: pairs.heads[n] for n in self.pair_heads}
        self.heads["vqa"] = vqa.heads["vqa"]

    def call(self, x, training=None):
        told, short = self._told(x), self._told(x, "short_")
        image, listed = (
            [ops.cast(x[f"{of}_{i}"], t.dtype) for i, t in enumerate(told)]
            for of in ("state", "listed")
        )
        images = self.fusion.project_image(
            [ops.concatenate(both) for both in zip(image, listed, strict=True)]
        )
        texts = self.fusion.project_text(told)
        mask = x["padding_mask"]
        count = image[0].shape[0] - OUTLIERS
        own = ops.arange(CAPTIONS)
        wrong = own + CAPTIONS
        asked = ops.arange(QUESTIONS * count - SHORT) + 2 * CAPTIONS
        lists = ops.arange(LISTS) + 2 * CAPTIONS + len(asked)
        lists = ops.tile(lists, 1 + WRONG)
        strange = ops.arange(OUTLIERS) + count
        pairs = [
            (own, own),
            (own, self._most_similar(told, image, x["apart"])),
            (wrong, own),
            (own[:OUTLIERS], strange),
            (lists, ops.arange(len(lists)) + count + OUTLIERS),
            (asked, x["asked_of"][:-SHORT]),
        ]
        shorter = _shorter(x, count)
        pooled = ops.concatenate(
            [
                self._pooled(texts, mask, images, pairs, training),
                self._pooled(
                    self.fusion.project_text(short),
                    *(x["short_padding_mask"], images, shorter, training),
                ),
            ]
        )
        filled = self.fusion.join(
            [t[-CAPTIONS:] for t in texts],
            [i[:CAPTIONS] for i in images],
            mask[-CAPTIONS:],
            outputs=("text",),
            training=training,
        )["text"]
        places = ops.expand_dims(x["places"], -1)
        # The ends of matched pairs, of lists and of questions.
        ends = 3 * CAPTIONS + OUTLIERS, -QUESTIONS * count - OUTLIERS
        logits = self.heads["itm"](pooled[: ends[1]])
        names, pictures = self._near(
            ops.take(told[-1], lists, axis=0)[:, 0], listed[-1][:, 0]
        )
        return {
            "match": logits[: ends[0]],
            "list": logits[ends[0] :],
            "near": ops.sum(names * pictures, -1),
            "vqa": self.heads["vqa"](pooled[ends[1] :]),
            "mlm": self.heads["mlm"](ops.take_along_axis(filled, places, 1)),
        }

    def _told(self, x, prefix=""):
        """Return the states of texts."""
        names = ("token_ids", "padding_mask", "segment_ids")
        return self.text_tower(
            {name: x[prefix + name] for name in names}, training=False
        )

    def _pooled(self, texts, mask, images, pairs, training):
        """Fuse pairs, given as rows of texts and rows of pictures."""
        text_rows, image_rows = map(ops.concatenate, zip(*pairs, strict=True))
        return self.fusion.join(
            [ops.take(t, text_rows, axis=0) for t in texts],
            [ops.take(i, image_rows, axis=0) for i in images],
            ops.take(mask, text_rows, axis=0),
            outputs=("pooled",),
            training=training,
        )["pooled"]

    def _near(self, text, image):
        """Return the vectors of both in the space."""
        found = self.itc({"text": text, "image": image})
        return found["text"], found["image"]

    def _most_similar(self, told, image, apart):
        """Return for each caption the most similar picture it is false of."""
        captions, pictures = apart.shape
        text, image = self._near(
            told[-1][:captions, 0], image[-1][:pictures, 0]
        )
        near = ops.matmul(text, ops.transpose(image))
        return ops.argmax(ops.where(apart > 0, near, near - 4.0), axis=1)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        found = {
            "vqa": losses.VQALoss()(y["vqa"], y_pred["vqa"]),
            "match": _match_loss(y_pred["match"]),
            "list": _list_loss(y_pred["list"], y_pred["near"]),
            "mlm": losses.MaskedLMLoss()(y["mlm"], y_pred["mlm"]),
        }
        self._note_pairs(y, y_pred)
        return sum(WEIGHTS[name] * loss for name, loss in found.items())

    def _note_answers(self, y, y_pred):
        best = ops.argmax(y_pred["vqa"], -1)[:, None]
        told = ops.take_along_axis(y["vqa"], best, 1)
        self.rates["vqa"].update_state(told[:-OUTLIERS])

    def _note_pairs(self, y, y_pred):
        self._note_answers(y, y_pred)
        margins = _margins(y_pred["match"][:-OUTLIERS], 3)
        self.rates["match"].update_state(margins[0] > 0)
        self.rates["match"].update_state(margins[1:] < 0)
        near = ops.reshape(y_pred["near"], (1 + WRONG, -1))
        for name, scores in (
            ("list", _listed(y_pred["list"], near)),
            ("near", near),
        ):
            self.rates[name].update_state(ops.argmax(scores, 0) == 0)
        given = ops.cast(ops.argmax(y_pred["mlm"], -1), "int32")
        self.rates["mlm"].update_state(given == y["mlm"], y["mlm"] >= 0)


class Questions(Fusion):
    """Learns from questions alone, in three fifths of the time."""

    pair_heads, rated = (), ("vqa",)

    def call(self, x, training=None):
        count = x["state_0"].shape[0] - OUTLIERS
        first, longer = 2 * CAPTIONS, QUESTIONS * count - SHORT
        asked = {
            name: x[name][first : first + longer]
            for name in ("token_ids", "padding_mask", "segment_ids")
        }
        told, short = self._told(asked), self._told(x, "short_")
        images = self.fusion.project_image(
            [ops.cast(x[f"state_{i}"], t.dtype) for i, t in enumerate(told)]
        )
        rows = [(ops.arange(longer), x["asked_of"][:-SHORT])]
        pooled = [
            self._pooled(
                self.fusion.project_text(texts), mask, images, pairs, training
            )
            for texts, mask, pairs in (
                (told, asked["padding_mask"], rows),
                (short, x["short_padding_mask"], _shorter(x, count)),
            )
        ]
        return {"vqa": self.heads["vqa"](ops.concatenate(pooled))}

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        self._note_answers(y, y_pred)
        return losses.VQALoss()(y["vqa"], y_pred["vqa"])


def _shorter(x, count):
    """Return the rows of the shortest questions and of their pictures.

    Some are also asked of the outliers, which follow the `count` scenes.
    """
    strange = ops.arange(OUTLIERS)
    return [
        (ops.arange(SHORT), x["asked_of"][-SHORT:]),
        (strange * (SHORT // OUTLIERS), strange + count),
    ]


def _margins(logits, rows):
    """Return the margin by which each pair matches, `(rows, pairs)`."""
    return ops.reshape(logits[:, 1] - logits[:, 0], (rows, -1))


def _pair_loss(margins):
    """Return the loss of right pairs in row 0, and of wrong ones in others."""
    wrong = ops.mean(ops.softplus(margins[1:]))
    return (ops.mean(ops.softplus(-margins[0])) + wrong) / 2


def _match_loss(logits):
    """Return the loss of captions: right pairs, wrong ones, and outliers.

    Wrong are first the pictures, then the captions.
    """
    strange = _margins(logits[-OUTLIERS:], 1)
    pairs = _pair_loss(_margins(logits[:-OUTLIERS], 3))
    return pairs + 0.25 * ops.mean(ops.softplus(strange))


def _listed(logits, near):
    """Return the scores of lists: what matching adds to the similarity."""
    return ops.reshape(logits[:, 1], near.shape) + SHARPNESS * near


def _list_loss(logits, near):
    """Return the loss of lists, and of each of their pairs by itself.

    Both arrays have the right pictures first; `near` are the similarities.
    """
    near = ops.reshape(near, (1 + WRONG, -1))
    listed = ops.log_softmax(_listed(logits, near), 0)[0]
    return _pair_loss(_margins(logits, 1 + WRONG)) - ops.mean(listed)
