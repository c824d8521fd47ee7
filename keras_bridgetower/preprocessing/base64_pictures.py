"""Pictures in base64, as programs send them in JSON."""

import base64
import os

from keras_bridgetower.preprocessing.images import is_base64

_URL_SAFE = str.maketrans("-_", "+/")


def decoded(image, name="images"):
    """A picture as `load_image` takes it, base64 turned into bytes.

    A string is base64 if it begins as a picture does in base64 and is not the
    path of a file, or if it begins with `data:`. Everything else is returned
    as it is, such as paths, bytes, arrays and PIL pictures.

    Args:
        image: one picture.
        name: str, what errors call it.

    Returns:
        bytes, or what was given.

    Raises:
        ValueError: damaged base64, or a `data:` URL without it.

    Example:

    ```python
    with open("photo.png", "rb") as file:
        text = base64.b64encode(file.read()).decode()
    decoded(text)[:4]  # b"\\x89PNG"
    ```
    """
    if not isinstance(image, str):
        return image
    if not image.startswith("data:") and (
        os.path.exists(image) or not is_base64(_start(image))
    ):
        return image
    return decode_base64(image, name)


def decode_base64(text, name="images"):
    """The bytes that base64 stands for; the text is never a path.

    Args:
        text: str, base64 in the usual or the URL-safe alphabet, or a `data:`
            URL with it.
        name: str, what errors call it.

    Raises:
        ValueError: damaged base64, or a `data:` URL without it.

    Example:

    ```python
    decode_base64("data:image/png;base64,iVBORw==")  # b"\\x89PNG"
    ```
    """
    head, _, body = text.partition(",")
    if not text.startswith("data:"):
        body = text
    elif not head.endswith(";base64"):
        raise ValueError(
            f"`{name}` must hold base64, as in 'data:image/png;base64,...'. "
            f"Received: {name}={text[:60]!r}..."
        )
    body = "".join(body.split()).rstrip("=").translate(_URL_SAFE)
    try:
        return base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except ValueError as error:
        raise ValueError(
            f"`{name}` must be whole base64 ({error}). Send it again. "
            f"Received: {name} of {len(text)} characters, {text[:40]!r}..."
        ) from error


def _start(text):
    return text[:64].encode("utf-8", "replace")
