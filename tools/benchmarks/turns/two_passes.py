"""Pre-training that encodes each picture once for every objective."""

from keras import ops

import keras_bridgetower as kbt


class TwoPasses(kbt.BridgeTowerPretraining):
    """The same objectives with a forward pass of its own for each.

    This is how the authors run them: matching encodes the pictures that it
    pairs, whether masked language has encoded them before or not.
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
