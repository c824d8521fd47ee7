"""Train the fusion and the heads; the towers are frozen."""

import keras
import numpy as np
from keras import ops

import keras_bridgetower as kbt
from keras_bridgetower.models.heads import contrastive_features
from keras_bridgetower.objectives import losses
from keras_bridgetower_drawings.training.easy import both_spellings
from keras_bridgetower_drawings.training.emoji import model
from keras_bridgetower_drawings.training.emoji import questions
from keras_bridgetower_drawings.training.emoji import texts
from keras_bridgetower_drawings.training.emoji.drawings import TrainingDrawings
from keras_bridgetower_drawings.training.emoji.kept_states import ALIKE
from keras_bridgetower_drawings.training.emoji.kept_states import CAPTIONS
from keras_bridgetower_drawings.training.emoji.kept_states import VARIED
from keras_bridgetower_drawings.training.emoji.kept_states import KeptStates
from keras_bridgetower_drawings.training.emoji.kept_states import WrongCaptions

BATCH, QUESTIONS = 64, 256  # Of a step.
WEIGHTS = {"vqa": 1.0, "itm": 2.0, "mlm": 0.5, "itc": 0.3}


def new_tasks(reader, eyes):
    """Return `Together` with a new fusion and heads over trained towers."""
    backbone, known = reader.backbone, reader.preprocessor
    given = known.tokenizer, known.image_converter
    pairs = kbt.BridgeTowerPretraining(
        backbone,
        kbt.BridgeTowerPretrainingPreprocessor(*given),
        projection_dim=model.SPACE,
        ways="three_way",
    )
    vqa = kbt.BridgeTowerVQA(
        backbone, kbt.BridgeTowerVQAPreprocessor(*given, questions.ANSWERS)
    )
    layers = [
        (pairs.heads["itc"].text_dense, reader.heads["itc"].text_dense),
        *zip(_eyes(pairs), _eyes(eyes), strict=True),
    ]
    for mine, taught in layers:
        mine.set_weights(taught.get_weights())
    fusion = backbone.fusion
    fusion.type_embedding.assign(eyes.backbone.fusion.type_embedding)
    _enter_where_the_picture_is(fusion, pairs.heads["itc"])
    return model.Together(vqa, pairs)


def with_both_spellings(folder, said):
    """Return `Together` of a preset, reading both spellings as one."""
    known = kbt.BridgeTowerPretraining.from_preset(folder)
    pairs = both_spellings.with_both_spellings(
        known, folder, said, texts.SPELLED
    )
    taught = kbt.BridgeTowerVQA.from_preset(folder)
    vqa = kbt.BridgeTowerVQA(
        pairs.backbone,
        kbt.BridgeTowerVQAPreprocessor(
            pairs.preprocessor.tokenizer,
            pairs.preprocessor.image_converter,
            questions.ANSWERS,
        ),
    )
    vqa.heads["vqa"].set_weights(taught.heads["vqa"].get_weights())
    return model.Together(vqa, pairs)


def _enter_where_the_picture_is(fusion, head):
    """Project texts near the pictures that they describe.

    The plain product of projected states is then the head's similarity.
    """
    text, image = head.text_dense.kernel, head.image_dense.kernel
    (projection,) = fusion.text_projections
    entry = ops.convert_to_numpy(ops.matmul(text, ops.transpose(image)))
    # Keep the scale of a random projection.
    drawn = ops.convert_to_numpy(ops.std(projection.kernel))
    projection.kernel.assign(entry * (drawn / entry.std()))


def learn(both, run, epochs, learning_rate, folder, easy_epochs=0):
    vqa, pairs = both.tasks
    _freeze_towers(pairs)
    drawings = TrainingDrawings(run)
    states = KeptStates(pairs, drawings, np.random.default_rng(run.seed))
    data = batches(states, drawings, _vectors(pairs, states), easy_epochs)
    return model.train(Fusion(pairs, vqa), data, epochs, learning_rate, folder)


class Fusion(model.Rated):
    """Questions, matching, masked words and the space, from kept states."""

    def __init__(self, pairs, vqa):
        super().__init__(("vqa", "itm", "mlm"))
        self.fusion = vqa.backbone.fusion
        self.heads = {n: pairs.heads[n] for n in ("itm", "mlm", "itc")}
        self.heads["vqa"] = vqa.heads["vqa"]
        self.ways = self.heads["itc"].ways
        self.losses_of = {
            "vqa": losses.VQALoss(),
            "itm": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "mlm": losses.MaskedLMLoss(),
            "itc": losses.ContrastiveLoss(self.ways),
        }

    def call(self, x, training=None):
        images, colored = _layers(x["images"]), _layers(x["colored"])
        texts, asked = _layers(x["texts"]), _layers(x["asked"])
        twice = [ops.concatenate([state, state]) for state in images]
        pooled = self._fused(texts, x["texts_mask"], twice, "pooled")
        filled = self._fused(
            _layers(x["masked"]), x["masked_mask"], images, "text"
        )
        places = ops.expand_dims(x["places"], -1)
        # The first half of the texts are those of the images.
        own = ops.shape(images[0])[0]
        vectors = self.heads["itc"](
            contrastive_features(
                self.fusion,
                self.ways,
                text=[state[:own] for state in texts],
                image=images,
                pooled=pooled[:own],
            )
        )
        return {
            "vqa": self.heads["vqa"](
                self._fused(asked, x["asked_mask"], colored, "pooled")
            ),
            "itm": self.heads["itm"](pooled),
            "mlm": self.heads["mlm"](ops.take_along_axis(filled, places, 1)),
            "itc": losses.pack_embeddings(
                vectors, self.heads["itc"].logit_scale
            ),
        }

    def _fused(self, texts, mask, images, what):
        return self.fusion(texts, images, padding_mask=mask, outputs=(what,))[
            what
        ]

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        told = {
            "vqa": ops.cast(ops.argmax(y["vqa"], -1), "int32"),
            "itm": y["itm"],
            "mlm": y["mlm"],
        }
        for name, metric in self.rates.items():
            given = ops.cast(ops.argmax(y_pred[name], -1), "int32")
            metric.update_state(given == told[name], told[name] >= 0)
        return sum(
            WEIGHTS[name] * loss(y[name], y_pred[name])
            for name, loss in self.losses_of.items()
        )


def batches(states, drawings, vectors, easy_epochs):
    """Return `Batches` for `Fusion`."""
    run = drawings.run
    wrong = WrongCaptions(run, states.captions, states.emoji_of, vectors)
    place = {text: row for row, text in enumerate(states.asked)}

    def texts_of(rows, alike, rng):
        numbers = [drawings.rows[row][0] for row in rows]
        own = np.searchsorted(states.emoji_of, numbers)
        own += rng.integers(CAPTIONS, size=len(own))
        return own, [wrong.draw(number, alike, rng) for number in numbers]

    def ask(row, rng):
        emoji = run.world[drawings.rows[row][0]]
        _, text, answer = questions.question(emoji, drawings.colors[row], rng)
        return place[text], questions.ANSWERS.index(answer)

    def make(rows, rng):
        grown = data.epoch / easy_epochs if easy_epochs else 1.0
        alike = ALIKE * min(1.0, grown)
        own, other = texts_of(rows, alike, rng)
        texts = np.concatenate([own, other])
        images = rows * VARIED + rng.integers(VARIED, size=len(rows))
        masked = states.masked[rng.integers(len(states.masked))]
        others = rng.permutation(len(drawings.rows))[:QUESTIONS]
        variant = rng.integers(VARIED // 2, size=len(others))
        colored = others * VARIED + variant
        asked, answers = np.transpose([ask(row, rng) for row in others])
        x = {
            "images": states.images[images],
            "texts": states.read.states[texts],
            "texts_mask": states.read.padding_mask[texts],
            "masked": masked.texts.states[own],
            "masked_mask": masked.texts.padding_mask[own],
            "places": masked.places[own],
            "colored": states.images[colored],
            "asked": states.questions.states[asked],
            "asked_mask": states.questions.padding_mask[asked],
        }
        looks = [run.splits.looks[drawings.rows[row][0]] for row in rows]
        y = {
            "vqa": np.eye(len(questions.ANSWERS), dtype="float32")[answers],
            "itm": np.repeat(np.array([1, 0], "int32"), len(rows)),
            "mlm": masked.tokens[own],
            "itc": np.array(looks, "int32"),
        }
        return x, y

    data = model.Batches(make, len(drawings.rows), BATCH, run.seed)
    return data


def _layers(states):
    """Return the states of each layer, in float32."""
    return [
        ops.cast(states[:, layer], "float32")
        for layer in range(states.shape[1])
    ]


def _vectors(pairs, states):
    last = states.read.states[:, -1, 0].astype("float32")
    head = pairs.heads["itc"]
    return ops.convert_to_numpy(head({"text": last})["text"])


def _freeze_towers(task):
    """Freeze all layers that the contrastive vectors depend on."""
    read = task.backbone.text_tower, task.heads["itc"].text_dense
    types = task.backbone.fusion.type_embedding
    for part in (*read, *_eyes(task), types):
        part.trainable = False


def _eyes(task):
    backbone = task.backbone
    projections = backbone.fusion.image_projections
    return [backbone.image_tower, *projections, task.heads["itc"].image_dense]
