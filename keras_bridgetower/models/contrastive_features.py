"""The vectors that a contrastive head embeds: text, image and fused pair."""

from keras_bridgetower.models.fusion_checks import IMAGE_ROW


def _projected_image(fusion, image):
    # Only the first token is used, so only that one is projected.
    return fusion.project_image([x[:, :1] for x in image], IMAGE_ROW)[-1][:, 0]


# The image vector, by the `ways` of the head: transformers projects it into
# the fusion's space, the authors take it as the tower gives it.
_IMAGE_VECTOR = {
    "three_way": _projected_image,
    "two_way": lambda fusion, image: image[-1][:, 0],
}


def contrastive_features(fusion, ways, text=None, image=None, pooled=None):
    """The inputs of a contrastive head, from tower states and fusion.

    Args:
        fusion: `CrossModalEncoder`.
        ways: `"three_way"` or `"two_way"`.
        text: list of text states, or None.
        image: list of image states, or None.
        pooled: float tensor `(batch, 2D)`, or None.

    Returns:
        dict of float tensors `(batch, width)`: `"text"`, `"image"` and
        `"fused"`, without those whose states are None.
    """
    vectors = {}
    if text is not None:
        vectors["text"] = text[-1][:, 0]
    if image is not None:
        vectors["image"] = _IMAGE_VECTOR[ways](fusion, image)
    if pooled is not None:
        vectors["fused"] = pooled
    return vectors
