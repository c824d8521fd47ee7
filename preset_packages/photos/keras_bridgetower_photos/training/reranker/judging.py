"""Teach the released fusion of scenes to judge sentences about pictures.

    export KERAS_BACKEND=torch
    python -m keras_bridgetower_photos.training.reranker.cards runs/reranker
    python -m keras_bridgetower_photos.training.reranker.judging runs/reranker

A caption is entailed by a picture, contradicted, or neither, as a card may hide
the thing of which it tells. A statement tells of two pictures which of them a
caption is true of. Matches are trained on, so that they are not forgotten.
"""

import json
import pathlib

import keras
import numpy as np
from keras import ops
from keras_bridgetower_drawings.training import reports
from keras_bridgetower_drawings.training.easy.meaning import CONTRADICTION
from keras_bridgetower_drawings.training.easy.meaning import ENTAILMENT
from keras_bridgetower_drawings.training.easy.meaning import NEUTRAL
from keras_bridgetower_drawings.training.emoji import model
from keras_bridgetower_drawings.training.scenes import captions
from keras_bridgetower_drawings.training.scenes.fusing import grouped
from keras_bridgetower_drawings.training.scenes.scenes import SORTS

import keras_bridgetower as kbt
from keras_bridgetower.models.fusion import IMAGE_ROW
from keras_bridgetower.models.fusion import SECOND_IMAGE_ROW
from keras_bridgetower_photos.training import packages
from keras_bridgetower_photos.training import things
from keras_bridgetower_photos.training.reranker import cards
from keras_bridgetower_photos.training.reranker import fusing
from keras_bridgetower_photos.training.reranker import names
from keras_bridgetower_photos.training.reranker import start

PRESET = "bridgetower_small_photo_scenes_retrieval"
GROUPS, STEPS, EPOCHS, RATE = 8, 50, 44, 7e-4
PAIRS = 3  # Statements of a group.
SHORT = 11  # Words of a caption in a statement.
EXCHANGED = 0.5
LABELS = "contradiction", "neutral", "entailment"
# Statements, and whether they are true where a caption is true of the left and
# of the right picture, or not.
KINDS = {
    "both": lambda left, right: left and right,
    "one": lambda left, right: left != right,
    "neither": lambda left, right: not (left or right),
    "some": lambda left, right: left or right,
    "left": lambda left, right: left,
    "right": lambda left, right: right,
}
FORMS = json.loads(pathlib.Path(__file__).with_suffix(".json").read_text())
# Those of a matching pair: the scene, and whether a caption is true of it.
TRUTHS = [(a, b) for a in (True, False) for b in (True, False)]


class Groups(fusing.Groups):
    """Groups of pictures with cards."""

    pictures = cards.PICTURES

    def draw(self, rng, count):
        """Draw groups, as many of each sort.

        Returns:
            `(scenes, sorts, rows)`: all pictures of each group, in order.
        """
        found, sorts, places = [], [], []
        first = int(rng.integers(len(SORTS)))
        for number in range(count):
            sort = SORTS[(first + number) % len(SORTS)]
            pool, row = self.of[sort][rng.integers(len(self.of[sort]))]
            all_of = [(pool, row + i) for i in range(self.pictures)]
            if rng.random() < 0.5:
                # The near miss becomes the scene.
                all_of = [all_of[i ^ 1] for i in range(self.pictures)]
            found += [self.scenes[p][r] for p, r in all_of]
            sorts.append(sort)
            places += all_of
        return found, sorts, places


class Judging(fusing.Matching):
    """The fusion with the heads of matching, of entailment and of NLVR2.

    Args:
        tasks: the retrieval task, the entailment task and the NLVR2 task.
    """

    def __init__(self, *tasks):
        super().__init__(tasks[0])
        self.entailment = tasks[1].heads["entailment"]
        self.nlvr2 = tasks[2].heads["nlvr2"]
        # Of a statement and one of its pictures: whether the caption is true
        # of it, and the kind of the statement.
        self.halves = keras.layers.Dense(1 + len(KINDS))
        self.halves.build((None, 2 * self.backbone.fusion.hidden_dim))
        for name in (*LABELS, *KINDS):
            self.rates[name] = keras.metrics.Mean(name=name)

    def call(self, x, training=None):
        count = x["places"].shape[0]
        told = ("token_ids", "padding_mask")
        matched = x | {k: x[k][:count] for k in told}
        matched["images"] = [states[:count] for states in x["images"]]
        outputs = super().call(matched, training)
        fusion = self.backbone.fusion
        texts = self.backbone.text_tower({k: x[k] for k in told})
        texts = fusion.project_text(texts)
        first, second = (
            fusion.project_image(self.states(x["images"]), row)
            for row in (IMAGE_ROW, SECOND_IMAGE_ROW)
        )

        def pooled(rows, images, of):
            mask = ops.take(x["padding_mask"], rows, 0)
            return fusion.join(
                [ops.take(t, rows, 0) for t in texts],
                [ops.take(i, of, 0) for i in images],
                mask,
                outputs=("pooled",),
                training=training,
            )["pooled"]

        judged = pooled(x["judged_texts"], first, x["judged_images"])
        rows = x["pair_texts"]
        both = [
            pooled(rows, first, x["left"]),
            pooled(rows, second, x["right"]),
        ]
        return (
            *outputs,
            self.entailment(judged),
            self.nlvr2(ops.concatenate(both, -1), training=training),
            self.halves(ops.stack(both, 1)),
        )

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        *matched, judged, compared, halves = y_pred
        loss = super().compute_loss(x, y, tuple(matched))
        for logits, key, named, of in (
            (judged, "labels", LABELS, "labels"),
            (compared, "true_pairs", KINDS, "kinds"),
        ):
            right = ops.cast(ops.argmax(logits, -1), "int32") == y[key]
            for number, name in enumerate(named):
                one = ops.cast(y[of] == number, "float32")
                self.rates[name].update_state(right, one)
            entropy = keras.losses.sparse_categorical_crossentropy(
                y[key], logits, from_logits=True
            )
            loss += 2 * ops.mean(entropy)
        told = ops.binary_crossentropy(
            ops.cast(y["halves"], "float32"), halves[..., 0], from_logits=True
        )
        of_kind = keras.losses.sparse_categorical_crossentropy(
            ops.stack([y["kinds"]] * 2, 1), halves[..., 1:], from_logits=True
        )
        return loss + ops.mean(told) + ops.mean(of_kind)


def batches(groups, tokenizer, steps, seed, part="training", exchanged=None):
    """Return `Batches` of groups with new captions and statements."""
    exchanged = EXCHANGED if exchanged is None else exchanged
    count = cards.PICTURES

    def make(rows, rng):
        drawn, sorts, places = groups.draw(rng, len(rows))
        images = groups.states(places)
        for row in range(0, len(drawn), count):
            if rng.random() < exchanged:
                one = slice(row, row + count)
                drawn[one], images[-1][one] = groups.exchange(
                    drawn[one], images[-1][one], rng
                )
        return judged(drawn, sorts, images, tokenizer, part, rng)

    return model.Batches(make, steps * GROUPS, GROUPS, seed)


def judged(drawn, sorts, images, tokenizer, part, rng):
    """Return inputs and truth of groups: matches, hypotheses, statements."""
    total = len(drawn) // cards.PICTURES
    told = []
    for number, sort in enumerate(sorts):
        first = number * cards.PICTURES
        told += captions.captions(
            drawn[first], sort, part, rng, drawn[first + 1]
        )
    # Pictures without a card come first, as matching reads them.
    order = np.arange(len(drawn)).reshape(total, -1)
    order = np.concatenate([order[:, :2].ravel(), order[:, 2:].ravel()])
    at = np.argsort(order)
    images = [states[order] for states in images]
    plain = [drawn[i] for i in order[: 2 * total]]
    kinds = [SORTS.index(sort) for sort in sorts]
    x, y = grouped(plain, told, kinds, images, tokenizer, start.GRID)
    rows, labels = [], []
    for number, sort in enumerate(sorts):
        for text, picture, label in hypotheses(sort, rng):
            here = at[number * cards.PICTURES + picture]
            rows.append((2 * number + text, here))
            labels.append(label)
    x["judged_texts"], x["judged_images"] = np.array(rows, "int32").T
    y["labels"] = np.array(labels, "int32")
    texts, pairs, halves, of_kind, true = statements(plain, told, part, rng)
    ids = np.asarray(tokenizer(texts), "int32")
    mask = (ids != tokenizer.pad_token_id).astype("int32")
    x["pair_texts"] = np.arange(len(texts), dtype="int32") + len(told)
    x["token_ids"] = np.concatenate([x["token_ids"], ids])
    x["padding_mask"] = np.concatenate([x["padding_mask"], mask])
    x["left"], x["right"] = np.array(pairs, "int32").T
    found = {"halves": halves, "kinds": of_kind, "true_pairs": true}
    y |= {key: np.array(values, "int32") for key, values in found.items()}
    return x, y


def hypotheses(sort, rng):
    """Return `(caption, picture, label)` of a group: two of each label.

    Caption 0 is true of picture 0, and caption 1 of its near miss, picture 1.
    """
    found = []
    for text in (0, 1):
        other = 1 - text
        carded = rng.random() < 0.5
        true = (cards.ELSEWHERE if carded else cards.PLAIN)[text]
        found.append((text, true, ENTAILMENT))
        carded = rng.random() < 0.5
        false = (cards.ELSEWHERE if carded else cards.PLAIN)[other]
        unknown = cards.HIDDEN[text]
        if sort == "thing":
            # The thing that is not seen may be under the card.
            if rng.random() < 0.3:
                unknown = cards.ELSEWHERE[other]
            false = cards.PLAIN[other]
        if sort == "ground" and rng.random() < 0.3:
            # What is seen contradicts, whatever is hidden.
            false = cards.HIDDEN[other]
        found.append((text, false, CONTRADICTION))
        found.append((text, unknown, NEUTRAL))
    return found


def statements(plain, told, part, rng):
    """Draw statements about pairs of pictures, as many true as false.

    Returns:
        `(texts, pairs, halves, kinds, true)`: pictures of each pair, and
        whether the caption is true of them.
    """
    texts, pairs, halves, kinds, true = [], [], [], [], []
    # Others would be cut.
    short = [i for i, t in enumerate(told) if len(t.text.split()) <= SHORT]
    short = short or range(len(told))
    for _ in range(len(told) // 2 * PAIRS):
        text = int(short[rng.integers(len(short))])
        right = [told[text].facts <= scene.facts for scene in plain]
        of = {
            True: [text],
            False: [i for i, one in enumerate(right) if not one],
        }
        kind = int(rng.integers(len(KINDS)))
        name, judge = [*KINDS.items()][kind]
        wanted = bool(rng.integers(2))
        fits = [pair for pair in TRUTHS if judge(*pair) == wanted]
        truth = fits[rng.integers(len(fits))]
        pair = []
        for holds in truth:
            near = text ^ 1
            choice = of[holds][rng.integers(len(of[holds]))]
            if not holds and rng.random() < 0.5:
                choice = near
            pair.append(choice)
        form = FORMS[name][part]
        texts.append(form[rng.integers(len(form))].format(told[text].text))
        pairs.append(pair)
        halves.append(truth)
        kinds.append(kind)
        true.append(wanted)
    return texts, pairs, halves, kinds, true


class Run:
    """The tasks of the released preset, and the pools of a folder.

    Args:
        folder: path.
        preset: str, the retrieval preset from which training starts.
    """

    def __init__(self, folder, preset=PRESET, seed=0):
        self.folder, self.seed = pathlib.Path(folder), seed
        keras.utils.set_random_seed(seed)
        matches = kbt.BridgeTowerRetrieval.from_preset(preset)
        given = matches.preprocessor
        given = given.tokenizer, given.image_converter
        self.tasks = (
            matches,
            kbt.BridgeTowerEntailment(
                matches.backbone, kbt.BridgeTowerEntailmentPreprocessor(*given)
            ),
            kbt.BridgeTowerNLVR2(
                matches.backbone, kbt.BridgeTowerNLVR2Preprocessor(*given)
            ),
        )
        self.tokenizer = given[0]
        folders = packages.fetch(self.folder / "packages")
        self.names = names.read(folders, things.load(folders))

    def groups(self, part):
        folder = self.folder / "judged" / part
        return Groups(folder, self.names.called, self.names.classes)

    def train(self, epochs, rate):
        learner = Judging(*self.tasks)
        data = batches(
            self.groups("training"), self.tokenizer, STEPS, self.seed
        )
        held = batches(
            self.groups("validation"), self.tokenizer, 32, 0, "validation", 0.0
        )

        def examine(epoch, logs=None):
            if epoch % 2:
                print(learner.evaluate(held, verbose=0, return_dict=True))

        callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=examine)]
        model.train(
            learner,
            data,
            epochs,
            rate,
            self.folder / "judging_run",
            callbacks,
            run_eagerly=True,
        )
        model.Together(*self.tasks).save_to_preset(self.folder / "judging")


def main():
    parser = reports.parser(__doc__)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--rate", type=float, default=RATE)
    settings = parser.parse_args()
    Run(settings.folder).train(settings.epochs, settings.rate)


if __name__ == "__main__":
    main()
