"""Errors about files of others, whose values are printed safely."""

import contextlib

# A message shows at most this many characters of a value, and values.
LENGTH, MOST = 300, 20


class PresetError(ValueError):
    """A preset folder is damaged, malicious, or of another kind.

    Args:
        problem: str, what was expected and how to fix it.
        folder: path of the preset folder.
        found: sequence of values that were found. The message shows the
            first 20, each with at most 300 characters.

    Example:

    ```python
    raise PresetError("Fetch it again.", "preset", ["model.weights.h5"])
    ```
    """

    def __init__(self, problem, folder, found=()):
        super().__init__(_message(problem, "preset", folder, found))


class ConversionError(ValueError):
    """The weights of another library cannot be read, or do not fit the model.

    Args:
        problem: str, what was expected and how to fix it.
        file: path of the file with the problem.
        found: sequence of str that were found, such as names of tensors,
            shown as in `PresetError`.

    Example:

    ```python
    raise ConversionError(
        "Tensors are missing.", "model.safetensors", ["itm_score.fc.bias"])
    ```
    """

    def __init__(self, problem, file, found=()):
        super().__init__(_message(problem, "file", file, found))


@contextlib.contextmanager
def converting(problem, file, found=()):
    """Turn all errors inside into a `ConversionError`: damage raises any."""
    try:
        yield
    except ConversionError:
        raise
    except Exception as error:
        raise ConversionError(
            f"{problem}: {error!s:.300}", file, found
        ) from error


def _message(problem, name, place, found):
    message = f"{problem} Received: {name}={short_text(str(place))}"
    if found:
        shown = [f"{part!s:.{LENGTH}}" for part in found[:MOST]]
        message += f": {'; '.join(shown)}"
    if len(found) > MOST:
        message += f", {len(found)} in all"
    # Messages of other libraries in `problem` may quote the file.
    return printable(message)


def printable(text):
    """Escape control characters in a text, such as terminal codes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def short_text(value):
    """Return a shortened `repr` of a JSON value from a file."""
    text = repr(value)
    return text if len(text) <= LENGTH else f"{text[:LENGTH]}…"


def short_plain(value):
    """Return a short text for a value from a pickle.

    Lists, dicts and other objects are shown by their type: a list may contain
    itself many times, so its text could be endless.
    """
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, (str, int, float)) or value is None:
        return f"{value!r:.80}"
    return type(value).__name__
