"""Safe reading of preset folders: regular files inside them, limited JSON."""

import os
import pathlib

from keras_bridgetower import files
from keras_bridgetower.presets.errors import PresetError
from keras_bridgetower.presets.table import ROOTS

# In bytes. The JSON of a large preset with thousands of answers has 0.3 MB,
# the vocabulary of a multilingual encoder 10 MB.
LARGEST_JSON = 16_000_000
LARGEST_ASSET = 64_000_000
# The largest header that the safetensors library accepts.
LARGEST_HEADER = 100_000_000


def check_regular(path, folder):
    """Check that a file is a regular file inside the folder.

    Reading a pipe or a device may wait forever or end the process. A link
    may lead to a private file of the user. Two kinds of links are allowed:
    those of the Hugging Face hub's cache to its own `blobs`, and those of an
    installer to the files of a package.

    Args:
        path: path of the file, in `folder`.
        folder: path of the preset folder.

    Raises:
        PresetError: the file is missing, is not a regular file, or is outside
            the folder.
    """
    name = os.path.relpath(path, folder)
    shipped = pathlib.Path(os.path.realpath(folder)).parent in ROOTS
    if not os.path.lexists(path):
        wrong = "is missing: fetch the preset again, or save the model again"
    elif not os.path.isfile(path):
        wrong = "must be a regular file that can be read"
    elif not shipped and files.Below(folder).leads_out(name):
        wrong = "must be in the folder, and is a link that leaves it"
    else:
        return
    raise PresetError(f"A file of a preset {wrong}.", folder, [name])


def check_safetensors(path):
    """Raise a ValueError if a header names a tensor twice, or is not JSON.

    The library, which finds all other damage, would use the last one.
    """
    with files.open_regular(path) as file:
        size = int.from_bytes(file.read(8), "little")
        files.parse_json(file.read(min(size, LARGEST_HEADER)))


def read_json(path, folder):
    """Read the dict in a JSON file of a folder.

    Args:
        path: path of the file.
        folder: path of the preset folder, for errors.

    Raises:
        PresetError: the file is missing, not regular, too large, too deeply
            nested, or not a JSON object.
    """
    check_regular(path, folder)
    try:
        return dict(files.read_json(path, LARGEST_JSON, nan=False))
    except (TypeError, ValueError) as error:
        name = os.path.relpath(path, folder)
        raise PresetError(
            f"{name} must hold one JSON object in UTF-8.", folder, [str(error)]
        ) from error
