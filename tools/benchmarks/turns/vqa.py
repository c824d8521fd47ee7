"""A training step of question answering, for each library."""

import numpy as np

from turns.answer import TransformersVQA
from turns.answer import keras_task
from turns.samples import ANSWERS
from turns.samples import features
from turns.steps import RATE
from turns.timed import Timed


def scores(batch):
    """Soft scores `(batch, answers)`: each row has three right answers."""
    rng = np.random.default_rng(11)
    wanted = np.zeros((batch, len(ANSWERS)), "float32")
    for row in wanted:
        row[rng.permutation(len(ANSWERS))[:3]] = 1.0, 0.6, 0.3
    return wanted


class KerasVQAStep(Timed):
    """`fit`'s step of `BridgeTowerVQA`, by `train_on_batch`."""

    def __init__(self, saved, contender):
        from keras_bridgetower.training import AdamW

        self.task = keras_task(saved, dtype=contender.dtype, preprocessor=None)
        self.task.compile(AdamW(RATE, decay=()), jit_compile=contender.compiled)

    def run(self, batch, tokens):
        side = self.task.input["images"].shape[1]
        x, y = features(batch, side, tokens), scores(batch)

        def step():
            made = self.task.train_on_batch(x, y, return_dict=True)
            return np.array([[float(made["loss"])]])

        return step


class TransformersVQAStep(TransformersVQA):
    """The plain loop over transformers' encoder with a head of PyTorch."""

    def __init__(self, saved, contender):
        super().__init__(saved, contender)
        self.model.train()
        self.optimizer = self.torch.optim.AdamW(self.model.parameters(), RATE)

    def run(self, batch, tokens):
        x = self.features(features(batch, self.side, tokens))
        wanted = self.torch.tensor(scores(batch)).to(self.device)
        loss_of = self.torch.nn.functional.binary_cross_entropy_with_logits

        def step():
            self.optimizer.zero_grad()
            logits = self.model(**x).float()
            loss = loss_of(logits, wanted, reduction="sum") / batch
            loss.backward()
            self.optimizer.step()
            return np.array([[float(loss)]])

        return step


LIBRARIES = {
    "keras_bridgetower": KerasVQAStep,
    "transformers": TransformersVQAStep,
}
