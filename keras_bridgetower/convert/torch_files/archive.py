"""Reads the zip files that `torch.save` writes.

A zip file can be built so that two programs read different content from it.
Files that could be read in two ways are rejected.
"""

import os
import struct
import zipfile
import zlib
from typing import NamedTuple

from keras_bridgetower.presets.errors import ConversionError

# The header before each entry: signature, version, flags, compression method,
# time, date, checksum, both sizes, and the lengths of name and extra field.
LOCAL_HEADER = struct.Struct("<4s5H3I2H")
ENCRYPTED, UTF8 = 0x1, 0x800
# Values of a checksum or size in that header if the real one follows the entry
# or is in a field of 64 bits.
ELSEWHERE = (0, 0xFFFFFFFF)
# The first bytes of files that PyTorch wrote before version 1.6.
BEFORE_ZIP = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
VERSIONS = range(1, 11)
# Bytes that are read at a time, so that they are still in the processor's
# cache when their checksum is computed.
BLOCK = 1 << 20
# Largest entry that describes the format.
SMALL = 64


class Entry(NamedTuple):
    """Position, size and checksum of an entry's bytes."""

    start: int
    size: int
    crc: int


class Archive:
    """The entries of a `torch.save` file, by their names in its one folder.

    The file is opened for each read and never mapped into memory. If it is
    truncated or replaced in the meantime, an error is raised; with a mapped
    file the process would crash.

    Args:
        path: `pathlib.Path` of the file.

    Raises:
        ConversionError: the file is not an intact file of `torch.save`.

    Example:

    ```python
    archive = Archive(pathlib.Path("pytorch_model.bin"))
    pickle = bytearray(archive.size("data.pkl"))
    archive.read_into("data.pkl", pickle)
    ```
    """

    def __init__(self, path):
        self.path = path
        if not path.is_file():
            raise self._error("It must be a regular file")
        with path.open("rb") as file:
            self._stamp = _stamp(file)
            entries = list(self._read_entries(file))
        self._entries = {name.partition("/")[2]: e for name, e in entries}
        self._checked = set()
        self._check_layout([name for name, _ in entries])

    def _read_entries(self, file):
        """Yield the name and the `Entry` of each entry; none may overlap."""
        if file.read(len(BEFORE_ZIP)) == BEFORE_ZIP or _is_tar(file):
            raise ConversionError(
                "The file has the format of PyTorch before version 1.6, which "
                "is no zip file. Open it with PyTorch and save it again: "
                "torch.save(torch.load(path, weights_only=True), path).",
                self.path,
            )
        try:
            with zipfile.ZipFile(file) as archive:
                infos = archive.infolist()
        except Exception as error:  # A damaged directory raises any error.
            raise self._error(
                f"{type(error).__name__}: {error!s:.100}"
            ) from error
        if any(i.filename.endswith("/constants.pkl") for i in infos):
            raise ConversionError(
                "The file is a TorchScript program, which is not run. Save "
                "its weights alone: torch.save(torch.jit.load(path)"
                ".state_dict(), path).",
                self.path,
            )
        end = 0
        for info in sorted(infos, key=lambda info: info.header_offset):
            if info.header_offset < end or (not end and info.header_offset):
                raise self._error("Entries overlap or do not begin the file")
            start = self._start(file, info)
            end = start + info.file_size
            yield info.filename, Entry(start, info.file_size, info.CRC)
        if end > os.fstat(file.fileno()).st_size:
            raise self._error("An entry goes beyond the end of the file")

    def _start(self, file, info):
        """Return the position of an entry's bytes; its headers must agree."""
        if info.compress_type != zipfile.ZIP_STORED:
            raise ConversionError(
                f"The entry {info.filename!r:.80} is compressed, which "
                "`torch.save` never does. Open the file with PyTorch and save "
                "it again.",
                self.path,
            )
        file.seek(info.header_offset)
        header = file.read(LOCAL_HEADER.size)
        if len(header) < LOCAL_HEADER.size:
            raise self._error(f"{info.filename!r:.80} is beyond the end")
        signature, _, flags, method, _, _, *sizes, name, extra = (
            LOCAL_HEADER.unpack(header)
        )
        encoding = "utf-8" if info.flag_bits & UTF8 else "cp437"
        known = (info.CRC, info.compress_size, info.file_size)
        if (
            signature != b"PK\x03\x04"
            or (flags, method) != (info.flag_bits, info.compress_type)
            or flags & ENCRYPTED
            or info.compress_size != info.file_size
            or file.read(name) != info.orig_filename.encode(encoding)
            or any(
                a != b and a not in ELSEWHERE
                for a, b in zip(sizes, known, strict=True)
            )
        ):
            raise self._error(f"The headers of {info.filename!r:.80} disagree")
        return info.header_offset + LOCAL_HEADER.size + name + extra

    def _check_layout(self, names):
        folders = {name.partition("/")[0] for name in names}
        if len(folders) != 1 or len(self._entries) != len(names):
            raise self._error("Its entries must be of one folder, each once")
        for name in ("data.pkl", "version"):
            if name not in self._entries:
                raise self._error(f"It has no entry {name!r}")
        version = self._read_small("version")
        if version.strip() not in {b"%d" % v for v in VERSIONS}:
            raise self._error(f"Its version is {version!r:.80}")
        if "byteorder" in self._entries:
            order = self._read_small("byteorder")
            if order != b"little":
                raise self._error(f"Its byte order is {order!r:.80}")

    def _read_small(self, name):
        if self.size(name) > SMALL:
            raise self._error(f"{name!r} is too long")
        content = bytearray(self.size(name))
        self.read_into(name, content)
        return bytes(content)

    def size(self, name):
        """Return the size of an entry in bytes, or None if it is absent."""
        entry = self._entries.get(name)
        return None if entry is None else entry.size

    def read_into(self, name, target, offset=0):
        """Check the checksum of an entry, and fill a buffer with its bytes.

        Args:
            name: str, name of the entry.
            target: buffer of bytes to fill, such as a `bytearray`.
            offset: int, number of bytes to skip at the start of the entry.

        Raises:
            ConversionError: the checksum of the entry is wrong, or the file
                has changed since it was opened.
        """
        entry = self._entries[name]
        target = memoryview(target)
        whole = len(target) == entry.size
        with self.path.open("rb", buffering=0) as file:
            if _stamp(file) != self._stamp:
                raise self._error("It was changed while it was being read")
            if whole:
                crc = self._fill(file, entry.start, _blocks(target))
            elif name not in self._checked:
                scratch = memoryview(bytearray(min(BLOCK, entry.size)))
                rest = [BLOCK] * (entry.size // BLOCK) + [entry.size % BLOCK]
                crc = self._fill(file, entry.start, (scratch[:n] for n in rest))
            else:
                crc = entry.crc
            if crc != entry.crc and not entry.crc:
                raise ConversionError(
                    "The file was saved without checksums. Save it again after "
                    "torch.serialization.set_crc32_options(True).",
                    self.path,
                )
            if crc != entry.crc:
                raise self._error(f"The checksum of {name!r:.80} is wrong")
            self._checked.add(name)
            if not whole:
                self._fill(file, entry.start + offset, _blocks(target))

    def _fill(self, file, start, blocks):
        """Fill one block after the other, and return their checksum."""
        file.seek(start)
        crc = 0
        for block in blocks:
            done = 0
            while done < len(block):
                count = file.readinto(block[done:])
                if not count:
                    raise self._error("It ends too early")
                done += count
            crc = zlib.crc32(block, crc)
        return crc

    def _error(self, reason):
        return ConversionError(
            f"The file must be an intact file of `torch.save`: {reason}. Fetch "
            "it again.",
            self.path,
        )


def _is_tar(file):
    file.seek(257)
    return file.read(5) == b"ustar"


def _stamp(file):
    """Return values that change when a file is written to or replaced."""
    stat = os.fstat(file.fileno())
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _blocks(target):
    return (target[i : i + BLOCK] for i in range(0, len(target), BLOCK))
