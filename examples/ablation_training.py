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
from easy_world import captions
from easy_world import pictures
from easy_world.scenes import load_scenes
from easy_world.training import tiny_family
from easy_world.training.tiny_training import compile_for
from easy_world.training.tiny_training import learn_vocabulary
from easy_world.training.tiny_training import stream
from easy_world.training.tiny_training import train_image_tower

import keras_bridgetower as kbt
from keras_bridgetower.metrics.retrieval import retrieval_recall

# Share of a question's tokens that are hidden.
HIDDEN = 0.3
IGNORED = -100
# Pictures of the gallery on which recall is counted, five captions each.
GALLERY = 50


class Bench:
    """Shared settings of the runs of a table, with encoders in `folder`."""

    def __init__(self, settings, folder, size):
        self.settings, self.folder, self.size = settings, folder, size

    @functools.cached_property
    def scenes(self):
        return {n: load_scenes(n) for n in ("train", "test")}

    @functools.cached_property
    def tokenizer(self):
        scenes = self.scenes["train"]
        texts = [*scenes.data.questions, *captions.captions(scenes).texts]
        return kbt.BridgeTowerTokenizer(
            *learn_vocabulary(texts), tiny_family.SEQUENCE_LENGTH
        )

    def image_encoder(self, name):
        backbone = build(Variant("", {"num_layers": 1}, image=name), self.size)
        parts = types.SimpleNamespace(image_converter=converter(backbone))
        task = types.SimpleNamespace(backbone=backbone, preprocessor=parts)
        scenes, epochs = self.scenes["train"], self.settings.tower_epochs
        found = train_image_tower(task, scenes, epochs, self.settings)
        print(f"{name}: accuracies {found}", flush=True)
        return backbone.image_encoder

    def text_encoder(self, name):
        questions = self.scenes["train"].data.questions
        backbone = build(Variant("", {"num_layers": 1}, text=name), self.size)
        tower, steps = backbone.text_tower, self.settings.text_steps
        tokens = keras.layers.Dense(self.size.vocabularies[name])
        model = keras.Model(tower.input, tokens(tower(tower.input)[-1]))
        masking = self.tokenizer.masking(rate=HIDDEN)
        texts = self.tokenizer.encode(questions)
        rng = np.random.default_rng(0)
        compile_for(
            model,
            steps,
            self.settings.learning_rate,
            loss=keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, ignore_class=IGNORED
            ),
            jit_compile=False,
        )
        for step in range(steps):
            rows = rng.integers(
                len(questions), size=self.settings.tower_batch_size
            )
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

    def trained(self, name, train):
        """Return the weight file of an encoder, trained when first needed."""
        path = self.folder / f"{name.replace('/', '-')}.weights.h5"
        if not path.exists():
            keras.utils.set_random_seed(0)
            print(f"{name} is pre-trained.", flush=True)
            written = path.with_name(f"new-{path.name}")
            train(name).save_weights(written)
            written.replace(path)
        return path

    def backbone(self, variant, seed):
        image = self.trained(variant.image, self.image_encoder)
        text = self.trained(variant.text, self.text_encoder)
        keras.utils.set_random_seed(seed)
        backbone = build(variant, self.size)
        backbone.image_encoder.load_weights(image)
        backbone.text_encoder.load_weights(text)
        # The authors' first weights are of width 768: sums over fewer terms
        # would leave every attention even, and hardly learn.
        scale = (BASE.width / self.size.width) ** 0.5
        for weight in backbone.fusion.trainable_weights:
            if "kernel" in weight.path:
                weight.assign(weight * scale)
        backbone.image_tower.trainable = False
        return backbone

    def fit(self, task, batches, steps):
        """Train a task, scheduled as the tiny presets."""
        compile_for(task, steps, self.settings.learning_rate, jit_compile=False)
        task.fit(batches.prefetch(2), steps_per_epoch=steps, verbose=0)

    def vqa(self, variant, seed):
        """Train on questions; the scores on the test split, in percent."""
        backbone, settings = self.backbone(variant, seed), self.settings
        task = kbt.BridgeTowerVQA(
            backbone,
            kbt.BridgeTowerVQAPreprocessor(
                *(self.tokenizer, converter(backbone)),
                answers=pictures.answer_list(),
                features=tuple(backbone.input),
            ),
        )
        batches = drawn(
            self.scenes["train"].data, settings.steps, settings.batch_size, seed
        )
        self.fit(task, batches, settings.steps)
        return tiny_family.score_questions(task, self.scenes["test"])

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
                converter(backbone),
                "hard_negatives",
                features=tuple(backbone.input),
            ),
            "hard_negatives",
            tiny_family.PROJECTION_DIM,
        )
        epochs = -(-steps * batch_size // len(scenes.values)) + 1
        rows = tiny_family.caption_rows
        data, _ = stream(scenes, rows, epochs, batch_size, seed)
        self.fit(task, data.take(steps), steps)
        pool = captions.gallery(self.scenes["test"])
        count = GALLERY * len(captions.TEMPLATES)
        scores = task.rank(
            list(self.scenes["test"].data.images[pool.pictures[:GALLERY]]),
            pool.texts[:count],
            batch_size=256,
            verbose=0,
        )
        return round(retrieval_recall(scores, pool.owner[:count]).rsum, 3)


def converter(backbone):
    return kbt.BridgeTowerImageConverter(backbone.image_size)


def drawn(data, steps, batch_size, seed):
    """Return a dataset of raw batches of questions that are drawn."""
    rng = np.random.default_rng(seed)
    # The tables of docs/paper.md were drawn without the first.
    rows = rng.integers(len(data.questions), size=(1 + steps, batch_size))[1:]
    images = tf.constant(data.images)
    index, texts, answers = map(
        np.array, (data.image_index, data.questions, data.answers)
    )

    def batch(index, text, answers):
        return {"images": tf.gather(images, index), "text": text}, answers

    return tf.data.Dataset.from_tensor_slices(
        (index[rows], texts[rows], answers[rows])
    ).map(batch)
