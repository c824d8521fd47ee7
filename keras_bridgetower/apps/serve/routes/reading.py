"""Reads the inputs of a request: their number, their texts, their pictures."""

from keras_bridgetower.apps.serve.errors import RequestError


def check_count(limits, values, param):
    """Refuse more inputs than a request may hold."""
    if len(values) > limits.inputs:
        raise RequestError(
            400,
            f"{param}: a request may hold at most {limits.inputs}. Divide it. "
            f"Received: {len(values)}",
            param,
            "too_many_inputs",
        )


async def read_inputs(service, preset, values, param):
    """Inputs to embed, with their pictures as bytes.

    Args:
        service: `Service`.
        preset: `AskedPreset`.
        values: list of `bodies.Input`.
        param: str, the field that held them.

    Returns:
        Pair of lists: `(text, image)` of each, either may be None; and the
        fields of each, as `AskedPreset.ask` takes them.
    """
    names = [f"{param}.{index}" for index in range(len(values))]
    read = []
    for value, name in zip(values, names, strict=True):
        if value.text is not None and value.image is not None:
            preset.check_kind("fused", name)
        image = value.image
        if image is not None:
            image = await service.pictures.read(image, f"{name}.image")
        read.append((value.text, image))
    return read, [dict.fromkeys(("text", "image"), name) for name in names]
