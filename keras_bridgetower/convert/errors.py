"""`ConversionError`, raised if weights of another library cannot be used."""

from keras_bridgetower.presets.errors import printable

# An error lists so many findings; of the others it gives the number.
MOST_FINDINGS = 20


class ConversionError(ValueError):
    """The weights of another library cannot be read, or do not fit the model.

    Args:
        problem: str, what was expected and how to fix it.
        file: path of the file with the problem.
        found: sequence of str, what was found, such as names of tensors. The
            message shows the first 20 and the number of all.

    Example:

    ```python
    raise ConversionError(
        "Tensors are missing.", "model.safetensors", ["itm_score.fc.bias"])
    ```
    """

    def __init__(self, problem, file, found=()):
        message = f"{problem} Received: file={str(file)!r}"
        if found:
            more = (
                f", {len(found)} in all" if len(found) > MOST_FINDINGS else ""
            )
            parts = [f"{part!s:.300}" for part in found[:MOST_FINDINGS]]
            message += f": {'; '.join(parts)}{more}"
        super().__init__(printable(message))


def short_text(value):
    """A short text that shows a value from a foreign file in an error.

    For lists, dicts and other objects it is only the type: a list may contain
    itself, and its text could be endless.
    """
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, (str, int, float)) or value is None:
        return f"{value!r:.80}"
    return type(value).__name__
