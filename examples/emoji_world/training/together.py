"""Last stage: one fusion learns all tasks at once, so they share a preset."""

import keras
from easy_world.training.tiny_training import pack

from emoji_world.training.model import Batches
from keras_bridgetower.models.head_sets import HeadSet
from keras_bridgetower.presets import registry
from keras_bridgetower.presets import weights_file

# The loss of a question is a sum over all answers.
WEIGHTS = {"pairs": 1.0, "questions": 0.2}


class Together(keras.Model):
    """Pre-training and questions over the same backbone, in one step.

    Args:
        pretraining: `BridgeTowerPretraining`, compiled.
        vqa: `BridgeTowerVQA` over its backbone, compiled.
    """

    def __init__(self, pretraining, vqa):
        super().__init__()
        self.pairs, self.questions = pretraining, vqa
        self.built = True

    def call(self, inputs):
        return {
            "pairs": self.pairs(inputs["pairs"]),
            "questions": self.questions(inputs["questions"]),
        }

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        return sum(
            WEIGHTS[name]
            * task.compute_loss(
                x[name], y[name], y_pred[name], training=training
            )
            for name, task in self._tasks().items()
        )

    @property
    def metrics(self):
        own = [task.metrics for task in self._tasks().values()]
        return sum(own, super().metrics)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        found = {"loss": self._loss_tracker.result()}
        for name, task in self._tasks().items():
            numbers = task.compute_metrics(x[name], y[name], y_pred[name])
            numbers.pop("loss", None)
            found |= {f"{name}_{key}": n for key, n in numbers.items()}
        return found

    def batches(self, pairs, questions, order=None):
        """`Batches` of both, as the tasks' preprocessors make them.

        Args:
            pairs, questions: `Batches` of the same rows.
            order: as `Batches` takes it.
        """
        raw = {"pairs": pairs, "questions": questions}

        def make(rows, rng):
            features, labels = {}, {}
            for name, task in self._tasks().items():
                x, y = raw[name].make(rows, rng)
                x["step"] = rng.integers(2**31)  # What is drawn depends on it.
                made = task.preprocess_samples(x, y)
                features[name], labels[name] = made[:2]
            return features, labels

        return Batches(make, pairs.count, pairs.batch_size, pairs.seed, order)

    def save_to_preset(self, folder):
        """Write one preset that opens in each of the tasks."""
        self.pairs.save_to_preset(folder)
        heads, values = {}, {}
        for task in self._tasks().values():
            heads |= {name: task.heads[name] for name in task.heads}
            values |= task.head_values
        HeadSet(heads).save(folder / weights_file.TASK_WEIGHTS)
        registry.write_json(folder, registry.HEADS, values)
        pack(self.pairs.backbone, folder)

    def _tasks(self):
        return {"pairs": self.pairs, "questions": self.questions}
