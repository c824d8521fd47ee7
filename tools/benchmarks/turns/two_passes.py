"""Pre-training with a forward pass for each objective."""

from keras import ops

import keras_bridgetower as kbt


class TwoPasses(kbt.BridgeTowerPretraining):
    """The same objectives, each with its own forward pass.

    The authors run them so: matching encodes its pictures again, although
    masked language has encoded them.
    """

    def outputs_of(self, inputs):
        own = ops.reshape(inputs["match"], (-1, 1, 1, 1)) == 1
        images = inputs["images"]
        paired = ops.where(own, images, ops.roll(images, -1, axis=0))
        masked = self.backbone.fuse(
            {**inputs, "token_ids": inputs["masked_token_ids"]}, ("text",)
        )
        positions = ops.expand_dims(inputs["mask_positions"], -1)
        states = ops.take_along_axis(masked["text"], positions, axis=1)
        pooled = self.backbone.fuse({**inputs, "images": paired}, ("pooled",))
        return {
            "mlm": self.heads["mlm"](states),
            "itm": self.heads["itm"](pooled["pooled"]),
        }
