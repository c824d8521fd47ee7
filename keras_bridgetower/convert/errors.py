"""The one error of the conversion."""

from keras_bridgetower.presets.errors import printable

SHOWN = 20


class ConversionError(ValueError):
    """Weights of another library that cannot be read or do not fit.

    Args:
        problem: str, what was expected and how to mend it.
        file: path of the file at fault.
        found: sequence of str, what was found, such as names of tensors; the
            first 20 are shown, with the count of all.

    Example:

    ```python
    raise ConversionError(
        "Tensors are missing.", "model.safetensors", ["itm_score.fc.bias"])
    ```
    """

    def __init__(self, problem, file, found=()):
        message = f"{problem} Received: file={str(file)!r}"
        if found:
            more = f", {len(found)} in all" if len(found) > SHOWN else ""
            parts = [f"{part!s:.300}" for part in found[:SHOWN]]
            message += f": {'; '.join(parts)}{more}"
        super().__init__(printable(message))


def shown(value):
    """A value of a foreign file, short, whatever it is.

    A list may hold itself many times over: of what is not one plain value
    only the type is shown.
    """
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, (str, int, float)) or value is None:
        return f"{value!r:.80}"
    return type(value).__name__
