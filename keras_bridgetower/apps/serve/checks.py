"""Checks of what a client asks: its texts, its pictures, how many answers."""

import itertools

from keras_bridgetower.apps.serve.errors import InputError
from keras_bridgetower.preprocessing.geometry import as_square
from keras_bridgetower.preprocessing.images import open_image
from keras_bridgetower.preprocessing.texts import checked_texts


def _whole(text):
    return [text]


def token_counts(tokenizer, texts, parts_of=_whole):
    """How many tokens texts have, with those at start and end.

    Args:
        tokenizer: a `PackedTokenizer`.
        texts: list of str.
        parts_of: callable from a text to its parts, between which a token
            each stands.

    Returns:
        list of int.

    Raises:
        ValueError: a text that no tokenizer takes, such as an empty one.
    """
    parts = [parts_of(text) for text in checked_texts(texts)[0]]
    found = tokenizer.token_lists(itertools.chain.from_iterable(parts))
    lengths = map(len, found)
    return [
        1 + len(some) + sum(itertools.islice(lengths, len(some)))
        for some in parts
    ]


def check_lengths(counts, most, mend="Send a shorter text."):
    """Refuse texts of which a model would read only a part.

    Args:
        counts: list of int, what `token_counts` returns.
        most: int, the tokens that are read.
        mend: str, what else a client can do.

    Raises:
        InputError: a text has more tokens.
    """
    for count in counts:
        if count > most:
            raise InputError(
                "text",
                f"a text must not be longer than what is read, {most} tokens "
                f"with those at start and end. {mend} Received: {count} tokens",
            )


def check_top_k(task, asked):
    """Refuse more answers than there are.

    Args:
        task: a task.
        asked: list of `inputs.ToAsk` or `inputs.ToPredict`.

    Raises:
        InputError: one of them asks for more.
    """
    try:
        for one in asked:
            task.check_request(top_k=one.top_k)
    except ValueError as error:
        raise InputError("top_k", str(error)) from error


def opened_pictures(task, images, name="image"):
    """Pictures as small as the task takes them.

    Args:
        task: a task with a preprocessor.
        images: list of bytes of image files.
        name: str, the input that holds them.

    Raises:
        InputError: one of them cannot be read.
    """
    converter = task.needed_preprocessor().image_converter
    try:
        return [
            as_square(open_image(image, name), converter, name)
            for image in images
        ]
    except ValueError as error:
        raise InputError(name, str(error)) from error
