"""The one error of the conversion."""

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
            message += f": {'; '.join(map(str, found[:SHOWN]))}{more}"
        super().__init__(message)
