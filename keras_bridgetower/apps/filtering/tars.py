"""Reads a tar from its start to its end, and tells where it is not whole."""

import contextlib
import gzip
import tarfile
import zlib

from keras_bridgetower.files import open_regular

# What `files_of` raises. `BadGzipFile` is an `OSError`.
UNREADABLE = (tarfile.TarError, EOFError, OSError, zlib.error)
_GZIP = b"\x1f\x8b"


def files_of(path):
    """Iterate over `(name, size, read)` of the files in a tar.

    Args:
        path: path of the tar, which may be packed by gzip.

    Raises:
        UNREADABLE: it is no tar, is damaged, ends early, or goes on after its
            end.
    """
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(open_regular(path))
        packed = file.read(len(_GZIP)) == _GZIP
        file.seek(0)
        if packed:
            # Unlike `tarfile`, it reads on where a second file begins.
            file = opened.enter_context(gzip.GzipFile(fileobj=file))
        tar = opened.enter_context(
            tarfile.open(fileobj=file, mode="r|*", tarinfo=_Member)
        )
        for member in tar:
            if member.isreg():

                def read(member=member):
                    return tar.extractfile(member).read()

                yield member.name, member.size, read


class _Member(tarfile.TarInfo):
    """A member of a tar, at whose end and damaged headers Python stops.

    That would hide all files behind them.
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
