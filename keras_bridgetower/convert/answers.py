"""Reads the answer list of a question answering head from a file.

Checkpoints hold the weights of such a head, but not the names of its classes.
"""

import pathlib

from keras_bridgetower.convert.errors import ConversionError
from keras_bridgetower.files import parse_json
from keras_bridgetower.files import read_text
from keras_bridgetower.metrics.vqa_answers import answer_list


def read_answers(*paths):
    """Read the classes of a head in the order of their ids.

    Args:
        *paths: path of one file: a JSON list of answers, a JSON object that
            maps answers to ids, or a text file with one answer on each line.
            Or the paths of VQAv2's annotation files, training before
            validation.

    Returns:
        list of str.

    Raises:
        ConversionError: the file has none of these forms.

    Example:

    ```python
    read_answers("answers.json")
    ```
    """
    contents = [_read(pathlib.Path(path)) for path in paths]
    first = contents[0]
    if isinstance(first, dict) and "annotations" in first:
        return answer_list(*contents)
    if isinstance(first, dict) and set(first.values()) == set(
        range(len(first))
    ):
        first = sorted(first, key=first.get)
    if (
        len(contents) > 1
        or not isinstance(first, list)
        or not all(isinstance(answer, str) for answer in first)
    ):
        raise ConversionError(
            "Answers must be a list of strings, an object from answers to "
            "ids 0, 1, ..., one answer a line, or VQAv2 annotations.",
            paths[0],
        )
    return first


def _read(path):
    try:
        text = read_text(path)
        return text.splitlines() if path.suffix == ".txt" else parse_json(text)
    except (OSError, ValueError) as error:
        raise ConversionError(
            f"A file of answers must be readable: {error!s:.200}", path
        ) from error
