"""The interface of what is timed, and the part that transformers' share."""


class Timed:
    """Abstract: one work done by one library.

    Args:
        saved: `Saved`, whose files are opened.
        contender: `Contender`.
        **settings: the contender's `settings`.
    """

    def run(self, batch, tokens):
        """Prepare turns of one size.

        Args:
            batch: int, rows.
            tokens: int, length of the texts.

        Returns:
            callable without arguments that takes a turn and returns a float
            array `(rows, outputs)`. Outputs lie in the memory of the
            processor: to fetch them waits until an accelerator is done.
        """
        raise NotImplementedError

    def measured(self):
        """What the last turn was measured on besides its seconds."""
        return {}


class OfTransformers(Timed):
    """Abstract: a model of transformers on PyTorch, on the GPU if there is one.

    Args:
        saved: `Saved`.
        contender: `Contender`.
    """

    def __init__(self, saved, contender):
        import torch

        self.torch = torch
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.dtype = getattr(torch, contender.dtype)
        self.checkpoint = saved.path("checkpoint")

    def opened(self, cls):
        """A model, in inference."""
        model = cls.from_pretrained(self.checkpoint, dtype=self.dtype)
        self.side = model.config.vision_config.image_size
        return model.eval().to(self.device)

    def integers(self, values):
        """A tensor of int64."""
        return self.torch.tensor(values.astype("int64")).to(self.device)

    def pictures(self, images):
        """A tensor of the model's dtype, channels first."""
        pixels = self.torch.tensor(images.transpose(0, 3, 1, 2))
        return pixels.to(self.device, self.dtype)

    def features(self, made):
        """Arguments of a model.

        Args:
            made: dict of `samples.features`.
        """
        return {
            "pixel_values": self.pictures(made["images"]),
            "input_ids": self.integers(made["token_ids"]),
            "attention_mask": self.integers(made["padding_mask"]),
        }
