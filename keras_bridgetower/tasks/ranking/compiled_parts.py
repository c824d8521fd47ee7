"""Compiles the towers and the fusion of a task separately, for a ranking."""

import keras
from keras import ops

from keras_bridgetower.models.heads import contrastive_features


class Part(keras.Model):
    """A function of a task's layers.

    Args:
        task: whose layers are used.
        function: callable from a dict of tensors to tensors.
    """

    def __init__(self, task, function):
        super().__init__(dtype=task.dtype_policy)
        self.backbone, self.heads = task.backbone, task.heads
        self.function = function

    def call(self, inputs, training=None):
        return self.function(inputs)


class Parts:
    """The towers and the fusion of a task, each compiled alone.

    If the task has contrastive heads, the towers return embeddings besides
    their states, even when nothing reads them. They cost little next to a
    tower, and so one compiled version is enough.

    Args:
        task: a `BridgeTowerRetrieval`.
    """

    def __init__(self, task):
        backbone, fusion = task.backbone, task.backbone.fusion

        def encoded(kind, states, typed):
            made = {"states": ops.cast(ops.stack(typed, axis=1), "float32")}
            if "itc" in task.heads:
                features = contrastive_features(
                    fusion, task.ways, **{kind: states}
                )
                made["embeddings"] = task.heads["itc"](features)[kind]
            return made

        def text(inputs):
            states = backbone.text_tower(inputs)
            return encoded("text", states, fusion.project_text(states))

        def image(inputs):
            states = backbone.image_tower(inputs["images"])
            return encoded("image", states, fusion.project_image(states))

        def pairs(inputs):
            def of_pairs(name, rows):
                return ops.take(inputs[name], inputs[rows], axis=0)

            def states(name, rows):
                x = ops.cast(of_pairs(name, rows), fusion.compute_dtype)
                return ops.unstack(x, x.shape[1], axis=1)

            pooled = fusion.join(
                states("text", "text_rows"),
                states("image", "image_rows"),
                of_pairs("padding_mask", "text_rows"),
                ("pooled",),
            )["pooled"]
            (head,) = task.answering_heads
            return task.heads[head](pooled)

        self.text, self.image, self.pairs = (
            task.inference.forward("rank", Part(task, function))
            for function in (text, image, pairs)
        )


def parts_of(task):
    """The parts of a task, compiled once as long as its layers are these."""
    return task.inference.cached("rank", lambda: Parts(task))
