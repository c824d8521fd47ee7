"""Train a variant of the model on easy-VQA, and score it.

As in the paper the encoders are pre-trained and the cross-modal layers are
new. Each encoder is trained once: an image encoder names the attributes of
training pictures, a text encoder fills in hidden tokens of training questions.
"""

import functools
import types

import keras
import numpy as np
import tensorflow as tf
from ablation_variants import BASE
from ablation_variants import Variant
from ablation_variants import build
from easy_world import captions as easy_vqa_captions
from easy_world import pictures
from easy_world.scenes import load_scenes
from easy_world.training.tiny_family import PROJECTION_DIM
from easy_world.training.tiny_family import SEQUENCE_LENGTH
from easy_world.training.tiny_family import caption_rows
from easy_world.training.tiny_training import compile_for
from easy_world.training.tiny_training import learn_vocabulary
from easy_world.training.tiny_training import stream
from easy_world.training.tiny_training import train_image_tower

import keras_bridgetower as kbt
from keras_bridgetower.metrics.retrieval import retrieval_recall

# Share of a question's tokens that are hidden.
HIDDEN = 0.3
IGNORED = -100


def converter(side):
    return kbt.BridgeTowerImageConverter(side, mode="squash")


def once(folder, name, train):
    """Return the weight file of an encoder, trained when first needed."""
    path = folder / f"{name.replace('/', '-')}.weights.h5"
    if not path.exists():
        keras.utils.set_random_seed(0)
        print(f"{name} is pre-trained.", flush=True)
        written = path.with_name(f"new-{path.name}")
        train().save_weights(written)
        written.replace(path)
    return path


def image_encoder(name, size, scenes, settings):
    variant = Variant("", {"num_layers": 1}, image=name)
    backbone = build(variant, size)
    preprocessor = types.SimpleNamespace(
        image_converter=converter(backbone.image_size)
    )
    task = types.SimpleNamespace(backbone=backbone, preprocessor=preprocessor)
    epochs = settings.tower_epochs
    found = train_image_tower(task, scenes, epochs, settings)
    print(f"{name}: accuracies {found}", flush=True)
    return backbone.image_encoder


def text_encoder(name, tokenizer, size, scenes, settings):
    questions = scenes.data.questions
    backbone = build(Variant("", {"num_layers": 1}, text=name), size)
    tower = backbone.text_tower
    model = keras.Model(
        tower.input,
        keras.layers.Dense(size.vocabularies[name])(tower(tower.input)[-1]),
    )
    masking = tokenizer.masking(rate=HIDDEN)
    texts = tokenizer.encode(questions)
    rng = np.random.default_rng(0)
    compile_for(
        model,
        settings.text_steps,
        settings.learning_rate,
        loss=keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, ignore_class=IGNORED
        ),
        jit_compile=False,
    )
    for step in range(settings.text_steps):
        rows = rng.integers(len(questions), size=settings.tower_batch_size)
        ids, mask = (texts[k][rows] for k in ("token_ids", "padding_mask"))
        made = masking(ids, mask, seed=step)
        hidden = np.zeros_like(ids)
        # Places of slots that are left over are 0, the start token.
        np.put_along_axis(hidden, made["mask_positions"], 1, axis=1)
        hidden[:, 0] = 0
        x = {
            "token_ids": made["token_ids"],
            "padding_mask": mask,
            "segment_ids": np.zeros_like(ids),
        }
        loss = model.train_on_batch(
            {key: x[key] for key in tower.input},
            np.where(hidden, ids, IGNORED),
        )
    print(f"{name}: loss of hidden tokens {float(loss):.3f}", flush=True)
    return backbone.text_encoder


class Questions:
    """The questions of easy-VQA, as one tokenizer and converter read them.

    Texts and pictures are converted once and not again in every run.
    """

    def __init__(self, tokenizer, converter):
        self.tokenizer, self.converter = tokenizer, converter
        self.answers = pictures.answer_list()
        self._splits = {}

    def _split(self, name):
        if name not in self._splits:
            data = pictures.load(name)
            texts = self.tokenizer.encode(data.questions)
            texts["segment_ids"] = np.zeros_like(texts["token_ids"])
            images = np.asarray(self.converter(list(data.images)))
            self._splits[name] = data, images, texts
        return self._splits[name]

    def features(self, split, rows, names):
        """Features of questions, those with the given names."""
        data, images, texts = self._split(split)
        made = {"images": images[data.image_index[rows]]}
        made |= {name: x[rows] for name, x in texts.items()}
        return {name: made[name] for name in names}

    def targets(self, split, rows):
        """Return one-hot answers, float32."""
        answers = self._split(split)[0].answers
        ids = [self.answers.index(answers[row]) for row in rows]
        return np.eye(len(self.answers), dtype="float32")[ids]

    def train(self, task, steps, batch_size, learning_rate, seed):
        """Train a `BridgeTowerVQA` on the training pictures' questions."""
        rng = np.random.default_rng(seed)
        names = tuple(task.backbone.input)
        count = len(self._split("train")[0].questions)

        def batches():
            for _ in range(steps):
                rows = rng.integers(count, size=batch_size)
                x = self.features("train", rows, names)
                yield x, self.targets("train", rows)

        spec = keras.tree.map_structure(
            lambda x: tf.TensorSpec(x.shape, x.dtype), next(batches())
        )
        fit(
            task,
            tf.data.Dataset.from_generator(batches, output_signature=spec),
            steps,
            learning_rate,
        )

    def scores(self, task, batch_size=256):
        """Share of right answers on the test split, by kind of question."""
        data = self._split("test")[0]
        names = tuple(task.backbone.input)
        chosen = []
        for first in range(0, len(data.questions), batch_size):
            last = min(first + batch_size, len(data.questions))
            x = self.features("test", np.arange(first, last), names)
            chosen.extend(np.asarray(task.predict_on_batch(x)).argmax(-1))
        right = np.array(self.answers)[chosen] == data.answers
        kinds = np.array([pictures.question_kind(a) for a in data.answers])
        found = {kind: right[kinds == kind].mean() for kind in np.unique(kinds)}
        found["overall"] = right.mean()
        return {str(k): round(100 * float(x), 3) for k, x in found.items()}


def fit(task, batches, steps, learning_rate):
    """Train a task on a dataset of batches, scheduled as the tiny presets."""
    compile_for(task, steps, learning_rate, jit_compile=False)
    task.fit(batches.prefetch(2), steps_per_epoch=steps, verbose=0)


# Pictures of the gallery on which recall is counted, five captions each.
GALLERY = 50


class Bench:
    """Shared settings of the runs of a table, with encoders in `folder`."""

    def __init__(self, settings, folder, size):
        self.settings, self.folder, self.size = settings, folder, size
        self._questions = {}

    @functools.cached_property
    def scenes(self):
        return {n: load_scenes(n) for n in ("train", "test")}

    @functools.cached_property
    def tokenizer(self):
        captions = easy_vqa_captions.captions(self.scenes["train"]).texts
        texts = [*pictures.load("train").questions, *captions]
        return kbt.BridgeTowerTokenizer(
            *learn_vocabulary(texts), SEQUENCE_LENGTH
        )

    def backbone(self, variant, seed):
        image, text = variant.image, variant.text
        given = self.size, self.scenes["train"], self.settings

        def train_text():
            return text_encoder(text, self.tokenizer, *given)

        files = [
            once(self.folder, image, lambda: image_encoder(image, *given)),
            once(self.folder, text, train_text),
        ]
        keras.utils.set_random_seed(seed)
        backbone = build(variant, self.size)
        backbone.image_encoder.load_weights(files[0])
        backbone.text_encoder.load_weights(files[1])
        # The authors' first weights are of width 768: sums over fewer terms
        # would leave every attention even, and hardly learn.
        scale = (BASE.width / self.size.width) ** 0.5
        for weight in backbone.fusion.trainable_weights:
            if "kernel" in weight.path:
                weight.assign(weight * scale)
        backbone.image_tower.trainable = False
        return backbone

    def vqa(self, variant, seed):
        """Train on questions; the scores on the test split, in percent."""
        backbone = self.backbone(variant, seed)
        side = backbone.image_size
        if side not in self._questions:
            self._questions[side] = Questions(self.tokenizer, converter(side))
        questions = self._questions[side]
        task = kbt.BridgeTowerVQA(backbone, answers=questions.answers)
        settings = self.settings
        rate = settings.learning_rate
        questions.train(task, settings.steps, settings.batch_size, rate, seed)
        return questions.scores(task)

    def rsum(self, variant, seed):
        """Train matching on captions; the sum of recalls on the gallery."""
        settings, scenes = self.settings, self.scenes["train"]
        steps = settings.retrieval_steps
        batch_size = settings.retrieval_batch_size
        if not steps:
            return None
        backbone = self.backbone(variant, seed)
        task = kbt.BridgeTowerRetrieval(
            backbone,
            kbt.BridgeTowerRetrievalPreprocessor(
                self.tokenizer,
                converter(backbone.image_size),
                "hard_negatives",
                features=tuple(backbone.input),
            ),
            "hard_negatives",
            PROJECTION_DIM,
        )
        epochs = -(-steps * batch_size // len(scenes.values)) + 1
        data, _ = stream(scenes, caption_rows, epochs, batch_size, seed)
        fit(task, data.take(steps), steps, settings.learning_rate)
        return _rsum(task, self.scenes["test"])


def _rsum(task, scenes):
    pool = easy_vqa_captions.gallery(scenes)
    count = GALLERY * len(easy_vqa_captions.TEMPLATES)
    scores = task.rank(
        list(scenes.data.images[pool.pictures[:GALLERY]]),
        pool.texts[:count],
        batch_size=256,
        verbose=0,
    )
    return round(retrieval_recall(scores, pool.owner[:count]).rsum, 3)
