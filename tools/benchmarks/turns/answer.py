"""From a JPEG file and a question to the five best answers."""

import numpy as np

from turns.samples import ANSWERS
from turns.samples import TEXT
from turns.samples import load_weights
from turns.timed import OfTransformers
from turns.timed import Timed

# The scores of as many answers are compared.
BEST = 5


def keras_task(saved, **values):
    """`BridgeTowerVQA` with the saved head.

    Args:
        saved: `Saved`.
        **values: of `from_preset`.
    """
    import keras_bridgetower as kbt

    task = kbt.BridgeTowerVQA.from_preset(
        str(saved.path("checkpoint")), answers=ANSWERS, **values
    )
    head = task.heads["vqa"]
    parts = head.hidden_dense, head.layer_norm, head.output_dense
    variables = [weight for part in parts for weight in part.weights]
    for weight, value in zip(
        variables, load_weights(saved.answers), strict=True
    ):
        weight.assign(value)
    return task


class KerasAnswer(Timed):
    """`answer` of `BridgeTowerVQA`."""

    def __init__(self, saved, contender):
        self.task = keras_task(saved, dtype=contender.dtype)
        self.picture = str(saved.picture)

    def run(self, batch, tokens):
        def answer():
            found = self.task.answer(
                [self.picture] * batch, [TEXT] * batch, top_k=BEST
            )
            return np.array([[score for _, score in row] for row in found])

        return answer


class TransformersVQA(OfTransformers):
    """Abstract: transformers' encoder with the saved head in PyTorch."""

    def __init__(self, saved, contender):
        import transformers

        from turns.transformers_vqa import QuestionAnswering

        super().__init__(saved, contender)
        encoder = self.opened(transformers.BridgeTowerModel)
        self.model = QuestionAnswering(encoder, load_weights(saved.answers))


class TransformersAnswer(TransformersVQA):
    """transformers' processor and model."""

    def __init__(self, saved, contender):
        import transformers

        super().__init__(saved, contender)
        self.model.eval()
        self.processor = transformers.BridgeTowerProcessor.from_pretrained(
            self.checkpoint
        )
        self.picture = saved.picture

    def run(self, batch, tokens):
        from PIL import Image

        def answer():
            images = [
                Image.open(self.picture).convert("RGB") for _ in range(batch)
            ]
            x = self.processor(images, [TEXT] * batch, return_tensors="pt")
            x = x.to(self.device, self.dtype)
            with self.torch.inference_mode():
                scores = self.model(**x).float().sigmoid()
            best = scores.topk(BEST)
            # As the user gets them.
            rows = zip(best.values.tolist(), best.indices.tolist(), strict=True)
            found = [
                [(ANSWERS[i], score) for score, i in zip(*row, strict=True)]
                for row in rows
            ]
            return np.array([[score for _, score in row] for row in found])

        return answer


LIBRARIES = {
    "keras_bridgetower": KerasAnswer,
    "transformers": TransformersAnswer,
}
