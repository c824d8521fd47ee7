"""Reads image-text pairs from WebDataset tars and img2dataset folders."""

import contextlib
import dataclasses
import gzip
import hashlib
import itertools
import json
import os
import pathlib
import tarfile
import zlib

from keras_bridgetower.files import open_regular
from keras_bridgetower.files import parse_json

PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
TEXT, ABOUT = "txt", "json"
TARS = (".tar", ".tar.gz", ".tgz")
# Most bytes of a picture, and of a text or JSON.
_PICTURE_BYTES, _TEXT_BYTES = 64 * 2**20, 2**20
# Errors of a damaged tar. `BadGzipFile` is an `OSError`.
UNREADABLE = (tarfile.TarError, EOFError, OSError, zlib.error)
_GZIP = b"\x1f\x8b"


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """A picture with its text, or an error.

    Args:
        key: str, path of its files without their suffixes.
        uid: str, the `uid` of its JSON, or `""`.
        image: bytes of the picture's file.
        text: str.
        error: str, the reason why there is no pair, or None.
    """

    key: str
    uid: str = ""
    image: bytes = b""
    text: str = ""
    error: str | None = None


class Shard:
    """Abstract: some files of a data set.

    A subclass defines `state()`, a str that changes with the files, and
    `files()`, which yields `(name, size, read)` of the files, sample by sample.

    Args:
        path: `pathlib.Path` of a tar or folder.
        name: str, its path below the data set, without suffix.
    """

    def __init__(self, path, name):
        self.path, self.name = path, name

    def grouped(self):
        """Yield `(key, iterator of the files of a sample)`.

        Raises:
            UNREADABLE: after the last readable file, if the shard is damaged.
        """
        broken = None

        def until_broken():
            nonlocal broken
            try:
                yield from self.files()
            except UNREADABLE as error:
                broken = error

        yield from itertools.groupby(
            until_broken(), lambda file: sample_key(file[0])
        )
        if broken is not None:
            raise broken

    def samples(self):
        """Yield each `Sample`. The last one of a broken shard has its error.

        Files that belong to no sample, such as tables, are skipped.
        """
        keys = set()
        try:
            for key, files in self.grouped():
                sample = _sample(key, files)
                if sample is None:
                    continue
                if key in keys:
                    error = "its files must be in the shard once, together"
                    sample = Sample(key, sample.uid, error=error)
                keys.add(key)
                yield sample
        except UNREADABLE as error:
            error = f"it cannot be read further: {error}"
            yield Sample(self.path.name, error=error)


class TarShard(Shard):
    """A tar of WebDataset, read from its start to its end."""

    def state(self):
        found = self.path.stat()
        return f"{found.st_size} {found.st_mtime_ns}"

    def files(self):
        """Yield the files. Raise `UNREADABLE` at the first damaged place."""
        with contextlib.ExitStack() as opened:
            file = opened.enter_context(open_regular(self.path))
            packed = file.read(len(_GZIP)) == _GZIP
            file.seek(0)
            if packed:
                # Unlike `tarfile`, it also reads a second gzip stream.
                file = opened.enter_context(gzip.GzipFile(fileobj=file))
            tar = opened.enter_context(
                tarfile.open(fileobj=file, mode="r|*", tarinfo=_Member)
            )
            for member in tar:
                if member.isreg():

                    def read(member=member):
                        return tar.extractfile(member).read()

                    yield member.name, member.size, read


class FolderShard(Shard):
    """A folder with the files of samples."""

    def _paths(self):
        return sorted(
            (entry.path for entry in os.scandir(self.path) if entry.is_file()),
            # `1.txt` belongs to `1.jpg`, and `1-2.jpg` does not.
            key=lambda path: (sample_key(os.path.basename(path)), path),
        )

    def state(self):
        total = hashlib.sha256()
        for path in self._paths():
            found = os.stat(path)
            about = [path, found.st_size, found.st_mtime_ns]
            total.update(json.dumps(about).encode())
        return total.hexdigest()

    def files(self):
        for path in self._paths():

            def read(path=path):
                with open_regular(path) as file:
                    return file.read()

            yield os.path.basename(path), os.path.getsize(path), read


def find_shards(source):
    """Find the shards of a data set, a list of `Shard` sorted by name.

    Args:
        source: path of a tar, or of a folder with tars or with folders of
            pictures, at any depth.

    Raises:
        ValueError: no shard, or two with the same name.
    """
    source = pathlib.Path(source)
    found = []
    if source.is_file() and source.name.endswith(TARS):
        found = [TarShard(source, _stem(source.name))]
    for parent, folders, files in os.walk(source):
        folders.sort()
        parent = pathlib.Path(parent)
        below = parent.relative_to(source)
        found += [
            TarShard(parent / name, (below / _stem(name)).as_posix())
            for name in files
            if name.endswith(TARS)
        ]
        if any(file_suffix(name) in PICTURES for name in files):
            name = below.as_posix() if below.parts else source.resolve().name
            found.append(FolderShard(parent, name))
    if not found:
        raise ValueError(
            "SOURCE must be a tar, or a folder with tars (.tar, .tar.gz) or "
            "with folders of pictures and texts, as img2dataset writes them. "
            f"Received: {str(source)!r}, which holds none"
        )
    found.sort(key=lambda shard: shard.name)
    for one, next_one in itertools.pairwise(found):
        if one.name == next_one.name:
            raise ValueError(
                "The shards of SOURCE must have different names. Received: "
                f"{one.path} and {next_one.path}. Move one of them."
            )
    return found


def sample_key(name):
    """Return the key of a file, its path up to the first dot of its name."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition('.')[0]}"


def file_suffix(name):
    """Return the part of a name after the first dot, in lower case."""
    return name.rpartition("/")[2].partition(".")[2].lower()


def _stem(name):
    return name[: -len(max((s for s in TARS if name.endswith(s)), key=len))]


def _sample(key, files):
    """Build the sample of some files; None without picture and text."""
    found, error = {}, None
    for name, size, read in files:
        suffix = file_suffix(name)
        if suffix not in (*PICTURES, TEXT, ABOUT):
            continue
        if suffix in found:
            error = error or f"it must have one {suffix}, not several"
            continue
        limit = _PICTURE_BYTES if suffix in PICTURES else _TEXT_BYTES
        if size > limit:
            error = f"its {suffix} must have at most {limit:,} bytes"
        found[suffix] = b"" if size > limit else read()
    images = [found[suffix] for suffix in PICTURES if suffix in found]
    if not (images or TEXT in found):
        return None
    uid = ""
    try:
        about = _about(found)
        if isinstance(about.get("uid"), str):
            uid = about["uid"]
        text = _text(found, about)
    except ValueError as problem:
        error = error or str(problem)
    if not images:
        error = error or f"it must have a picture: {', '.join(PICTURES)}"
    if error:
        return Sample(key, uid, error=error)
    return Sample(key, uid, images[0], text)


def _about(found):
    """Parse the JSON of a sample to a dict, empty if there is none."""
    if not found.get(ABOUT):
        return {}
    try:
        about = parse_json(found[ABOUT])
    except ValueError as error:
        raise ValueError(f"its json must be JSON in UTF-8: {error}") from error
    return about if isinstance(about, dict) else {}


def _text(found, about):
    if TEXT in found:
        text = found[TEXT].decode("utf-8")
    else:
        text = about.get("caption")
    if not isinstance(text, str) or not text.strip():
        raise ValueError("it must have a text: a .txt, or `caption` in a .json")
    return text


class _Member(tarfile.TarInfo):
    """A member of a tar that reports damage.

    `tarfile` itself would silently stop at a damaged header.
    """

    @classmethod
    def fromtarfile(cls, tar):
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:
            while block := tar.fileobj.read(2**16):
                if block.strip(b"\0"):
                    raise tarfile.ReadError(
                        "other bytes follow its end, such as those of a "
                        "second tar"
                    ) from None
            raise
        except tarfile.EmptyHeaderError as error:
            raise tarfile.ReadError(
                "it ends without the zeros that end a tar"
            ) from error
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error
