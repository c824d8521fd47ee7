"""transformers has no model that answers questions: its encoder with a head."""

import torch


class QuestionAnswering(torch.nn.Module):
    """The head of `BridgeTowerVQA` on transformers' `BridgeTowerModel`.

    Args:
        encoder: `BridgeTowerModel`.
        weights: list of arrays, as `samples.answer_weights`.
    """

    def __init__(self, encoder, weights):
        super().__init__()
        self.encoder = encoder
        width, answers = weights[4].shape
        self.head = torch.nn.Sequential(
            torch.nn.Linear(len(weights[0]), width),
            torch.nn.LayerNorm(width),
            torch.nn.GELU(),
            torch.nn.Linear(width, answers),
        )
        with torch.no_grad():
            for place, value in zip(
                self.head.parameters(), weights, strict=True
            ):
                place.copy_(torch.tensor(value.T))
        self.head.to(encoder.device, encoder.dtype)

    def forward(self, **x):
        """Logits of the answers."""
        return self.head(self.encoder(**x).pooler_output)
