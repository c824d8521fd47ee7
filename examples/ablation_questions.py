"""Trains on easy-VQA's questions, and computes the score."""

import keras
import numpy as np
import tensorflow as tf
from easy_world import pictures as easy_vqa
from easy_world.training.tiny_training import compile_for


class Questions:
    """The questions of easy-VQA, as one tokenizer and converter read them.

    Texts and pictures are converted once and not again in every run.

    Args:
        tokenizer: a tokenizer of the library.
        converter: a `BridgeTowerImageConverter`.
    """

    def __init__(self, tokenizer, converter):
        self.tokenizer, self.converter = tokenizer, converter
        self.answers = easy_vqa.answer_list()
        self._splits = {}

    def _split(self, name):
        """A split, its pictures and its texts as features."""
        if name not in self._splits:
            data = easy_vqa.load(name)
            texts = self.tokenizer.encode(data.questions)
            texts["segment_ids"] = np.zeros_like(texts["token_ids"])
            pictures = np.asarray(self.converter(list(data.images)))
            self._splits[name] = data, pictures, texts
        return self._splits[name]

    def features(self, split, rows, names):
        """Features of questions, those with the given names."""
        data, pictures, texts = self._split(split)
        made = {"images": pictures[data.image_index[rows]]}
        made |= {name: x[rows] for name, x in texts.items()}
        return {name: made[name] for name in names}

    def targets(self, split, rows):
        """One-hot answers, float32."""
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
        kinds = np.array([easy_vqa.question_kind(a) for a in data.answers])
        found = {kind: right[kinds == kind].mean() for kind in np.unique(kinds)}
        found["overall"] = right.mean()
        return {str(k): round(100 * float(x), 3) for k, x in found.items()}


def fit(task, batches, steps, learning_rate):
    """Train a task on a dataset of batches, scheduled as the tiny presets."""
    compile_for(task, steps, learning_rate, jit_compile=False)
    task.fit(batches.prefetch(2), steps_per_epoch=steps, verbose=0)
