"""What contrastive heads read of tower states and fusion."""

from keras_bridgetower.models.fusion import IMAGE_ROW


def _projected(fusion, image):
    # Only the first token is read; the rest need not be projected.
    return fusion.project_image([x[:, :1] for x in image], IMAGE_ROW)[-1][:, 0]


# What a contrastive head reads of the image states.
_IMAGE_FEATURES = {
    "three_way": _projected,
    "two_way": lambda fusion, image: image[-1][:, 0],
}


def contrastive_features(fusion, ways, text=None, image=None, pooled=None):
    """What a contrastive head takes, from tower states and fusion.

    Args:
        fusion: `CrossModalEncoder`.
        ways: `"three_way"` or `"two_way"`.
        text: list of text states, or None.
        image: list of image states, or None.
        pooled: float tensor `(batch, 2D)`, or None.

    Returns:
        dict out of `"text"`, `"image"` and `"fused"`, of what was given.
    """
    made = {}
    if text is not None:
        made["text"] = text[-1][:, 0]
    if image is not None:
        made["image"] = _IMAGE_FEATURES[ways](fusion, image)
    if pooled is not None:
        made["fused"] = pooled
    return made
