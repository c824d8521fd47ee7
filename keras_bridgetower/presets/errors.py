"""The one error of preset folders."""

SHOWN = 10
LENGTH = 300


class PresetError(ValueError):
    """A preset folder that is damaged, hostile, or of another kind.

    Args:
        problem: str, what was expected and how to fix it.
        folder: path of the preset folder.
        found: sequence, what was found; the first 10 are shown, each as its
            `repr` without more than 300 characters.

    Example:

    ```python
    raise PresetError("Fetch it again.", "preset", ["model.weights.h5"])
    ```
    """

    def __init__(self, problem, folder, found=()):
        message = f"{problem} Received: preset={shown(str(folder))}"
        if found:
            listed = "; ".join(map(shown, found[:SHOWN]))
            more = f", {len(found)} in all" if len(found) > SHOWN else ""
            message += f": {listed}{more}"
        # What other libraries say of a file's values is part of it.
        super().__init__(printable(message))


def printable(text):
    """A text whose control characters, as of a terminal, are written out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shown(value):
    """What a file holds, as a message may print it.

    `repr` keeps the escape codes of terminals out of it.
    """
    text = repr(value)
    return text if len(text) <= LENGTH else f"{text[:LENGTH]}…"
