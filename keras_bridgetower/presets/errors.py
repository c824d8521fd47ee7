"""`PresetError`, and how it prints values from files safely."""

MOST_FINDINGS = 10
LENGTH = 300


class PresetError(ValueError):
    """A preset folder that is damaged, malicious, or of another kind.

    Args:
        problem: str, what was expected and how to fix it.
        folder: path of the preset folder.
        found: sequence of what was found. The `repr`s of the first 10 are
            shown, each with at most 300 characters.

    Example:

    ```python
    raise PresetError("Fetch it again.", "preset", ["model.weights.h5"])
    ```
    """

    def __init__(self, problem, folder, found=()):
        message = f"{problem} Received: preset={short_text(str(folder))}"
        if found:
            listed = "; ".join(map(short_text, found[:MOST_FINDINGS]))
            more = (
                f", {len(found)} in all" if len(found) > MOST_FINDINGS else ""
            )
            message += f": {listed}{more}"
        # `problem` may contain messages of other libraries, with values from
        # the file.
        super().__init__(printable(message))


def printable(text):
    """The text with control characters, such as terminal codes, escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def short_text(value):
    """A value from a file, shortened and escaped for a message."""
    text = repr(value)
    return text if len(text) <= LENGTH else f"{text[:LENGTH]}…"
