"""Compare a model's outputs with those of transformers for the same input."""

import contextlib

import keras
import numpy as np


def pooled_difference(backbone, folder):
    """Largest difference of the pooled outputs for the same random input.

    Import PyTorch before TensorFlow, after which importing it can crash.

    Args:
        backbone: a `BridgeTowerBackbone`.
        folder: path of a folder that `transformers` opens. Its cross-modal
            layers run with the backbone's epsilon.

    Returns:
        float, or None where transformers or PyTorch is not installed.
    """
    try:
        import torch
        import transformers
    except ImportError:
        return None
    side, rows = backbone.image_size, backbone.text_encoder.vocabulary_size
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, side, side, 3)).astype("float32")
    ids = rng.integers(min(4, rows - 1), rows, (2, 12)).astype("int32")
    mask = np.ones_like(ids)
    features = {"images": images, "token_ids": ids, "padding_mask": mask}
    ours = backbone(features, training=False)["pooled"]
    with _without_bar(transformers.utils.logging):
        model = transformers.BridgeTowerModel.from_pretrained(folder).eval()
    set_cross_modal_epsilon(model, backbone.fusion.layer_norm_epsilon)
    with torch.inference_mode():
        theirs = model(
            input_ids=torch.tensor(ids, dtype=torch.int64),
            attention_mask=torch.tensor(mask),
            pixel_values=torch.tensor(images.transpose(0, 3, 1, 2)),
        ).pooler_output.numpy()
    return float(np.abs(keras.ops.convert_to_numpy(ours) - theirs).max())


@contextlib.contextmanager
def _without_bar(settings):
    """A context in which transformers shows no progress bar."""
    shown = settings.is_progress_bar_enabled()
    settings.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            settings.enable_progress_bar()


def set_cross_modal_epsilon(model, epsilon):
    """Run the cross-modal layers of a transformers model with an epsilon."""
    import torch

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.LayerNorm) and "_layers." in name:
            module.eps = epsilon


def difference_text(difference):
    """The difference for a table."""
    if difference is None:
        return "not done: transformers is not installed"
    return f"{difference:.1e}"
