"""Read the files in a Qt resource file (`.rcc`).

It holds a tree of entries, their names and their data. Numbers are
big-endian; versions 1 to 3 differ in the header and in an entry's length.
"""

import pathlib
import struct
import zlib

COMPRESSED, FOLDER, ZSTANDARD = 1, 2, 4


def files(path):
    """Yield the path and the bytes of each file in a Qt resource file."""
    raw = pathlib.Path(path).read_bytes()
    magic, version, tree, data, names = struct.unpack_from(">4s4I", raw)
    if magic != b"qres" or version not in (1, 2, 3):
        raise ValueError(
            f"`{path}` is not a Qt resource file of version 1, 2 or 3. "
            f"Received: {magic!r}, version {version}"
        )
    # From version 2 on an entry ends with the time of its last change.
    length = 14 if version == 1 else 22

    def name(start):
        letters = struct.unpack_from(">H", raw, names + start)[0]
        # After the count of letters comes a hash of them.
        first = names + start + 6
        return raw[first : first + 2 * letters].decode("utf-16-be")

    def entries(number, folder):
        start = tree + number * length
        told, flags = struct.unpack_from(">IH", raw, start)
        # The root has no name.
        path = f"{folder}/{name(told)}" if number else ""
        if flags & FOLDER:
            count, first = struct.unpack_from(">2I", raw, start + 6)
            for child in range(first, first + count):
                yield from entries(child, path)
        else:
            where = data + struct.unpack_from(">I", raw, start + 10)[0]
            size = struct.unpack_from(">I", raw, where)[0]
            body = raw[where + 4 : where + 4 + size]
            yield path.lstrip("/"), _unpacked(body, flags, path)

    yield from entries(0, "")


def _unpacked(body, flags, path):
    if flags & ZSTANDARD:
        raise ValueError(
            f"`{path}` is compressed by Zstandard, which is not supported. "
            "Make the resource file again by `rcc --no-zstd`"
        )
    # The compressed data begin with the length of the file.
    return zlib.decompress(body[4:]) if flags & COMPRESSED else body
