"""Check the inputs of clients: texts, pictures, number of answers."""

import itertools

from keras_bridgetower.apps.serve.errors import InputError
from keras_bridgetower.preprocessing.geometry import as_square
from keras_bridgetower.preprocessing.images import open_image
from keras_bridgetower.preprocessing.texts import checked_texts


def _whole(text):
    return [text]


def token_counts(tokenizer, texts, parts_of=_whole):
    """Count the tokens of texts, special tokens included.

    Args:
        tokenizer: a `PackedTokenizer`.
        texts: list of str.
        parts_of: callable that splits a text into parts, which one token
            each separates.

    Returns:
        list of int.

    Raises:
        ValueError: a text that cannot be tokenized, such as an empty one.
    """
    parts = [parts_of(text) for text in checked_texts(texts)[0]]
    found = tokenizer.token_lists(itertools.chain.from_iterable(parts))
    lengths = map(len, found)
    return [
        1 + len(some) + sum(itertools.islice(lengths, len(some)))
        for some in parts
    ]


def check_lengths(counts, most, fix="Send a shorter text."):
    """Reject texts that are longer than the model reads.

    Args:
        counts: list of int, from `token_counts`.
        most: int, number of tokens that are read.
        fix: str, what to do instead, for the error.

    Raises:
        InputError: a text has more tokens.
    """
    for count in counts:
        if count > most:
            raise InputError(
                "text",
                f"a text must have at most {most} tokens, special tokens "
                f"included. {fix} Received: {count} tokens",
            )


def check_top_k(task, inputs):
    """Reject a `top_k` that exceeds the number of answers.

    Args:
        task: a task.
        inputs: list of `inputs.ToAsk` or `inputs.ToPredict`.

    Raises:
        InputError: `top_k` is too large.
    """
    try:
        for one in inputs:
            task.check_request(top_k=one.top_k)
    except ValueError as error:
        raise InputError("top_k", str(error)) from error


def opened_pictures(task, images, name="image"):
    """Open pictures, resized for a task.

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
