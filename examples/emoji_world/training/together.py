"""Two tasks over one backbone: trained in one step, saved as one preset."""

import keras
from easy_world.training.tiny_training import pack

from emoji_world.training.model import Batches
from keras_bridgetower.models.head_sets import HeadSet
from keras_bridgetower.presets import registry
from keras_bridgetower.presets import weights_file

# The loss of a question is a sum over all answers.
WEIGHTS = {"pairs": 1.0, "questions": 0.2}


class Together(keras.Model):
    """A task of pairs, and questions, over the same backbone, in one step.

    Args:
        pairs: `BridgeTowerPretraining` or `BridgeTowerContrastive`.
        vqa: `BridgeTowerVQA` over its backbone.
    """

    def __init__(self, pairs, vqa):
        super().__init__()
        self.pairs, self.questions = pairs, vqa
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

    def batches(self, pairs, questions):
        """`Batches` of both, as the tasks' preprocessors make them."""
        raw = {"pairs": pairs, "questions": questions}

        def make(rows, rng):
            features, labels = {}, {}
            for name, task in self._tasks().items():
                x, y = raw[name].make(rows, rng)
                x["step"] = rng.integers(2**31)  # What is drawn depends on it.
                made = task.preprocess_samples(x, y)
                features[name], labels[name] = made[:2]
            return features, labels

        return Batches(make, pairs.count, pairs.batch_size, pairs.seed)

    def save_to_preset(self, folder):
        """Write one preset that opens in each of the tasks."""
        save_together((self.pairs, self.questions), folder)

    def _tasks(self):
        return {"pairs": self.pairs, "questions": self.questions}


def save_together(tasks, folder):
    """Write one preset with the heads of several tasks over one backbone.

    Args:
        tasks: the first is what the preset opens as by itself.
        folder: path of the new folder.
    """
    first = tasks[0]
    first.save_to_preset(folder)
    heads, values = {}, {}
    for task in tasks:
        heads |= {name: task.heads[name] for name in task.heads}
        values |= task.head_values
    HeadSet(heads).save(folder / weights_file.TASK_WEIGHTS)
    registry.write_json(folder, registry.HEADS, values)
    pack(first.backbone, folder)
