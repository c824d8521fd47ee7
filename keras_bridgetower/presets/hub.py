"""Handles such as `hf://user/model`, and their folders in the local cache."""

import pathlib
import re

from keras_bridgetower.presets import downloads
from keras_bridgetower.presets import needed_files
from keras_bridgetower.presets.table import PRESETS

MAIN = "main"
# The weight file of the published repositories.
WEIGHTS = "pytorch_model.bin"
# Names that the hub allows for users and models, and git for revisions.
_NAME = r"\w(?:[\w.-]*\w)?"
_REPOSITORY = re.compile(rf"(?:{_NAME}/)?{_NAME}", re.ASCII)
_REVISION = re.compile(r"\w[\w.+-]*(?:/\w[\w.+-]*)*", re.ASCII)


def _from_hugging_face(handle):
    """The folder of a repository, from the cache or the network."""
    repository, _, revision = handle.partition("@")
    revision = revision or MAIN
    folder = _cached(repository, revision)
    lacks = needed_files.lacking(folder) if folder else []
    if folder and not lacks:
        return str(folder)
    try:
        return downloads.fetch(repository, revision)
    except Exception as error:
        if lacks == [needed_files.TOKENIZER]:
            # The repository may have no tokenizer; a task reports that.
            return str(folder)
        if not lacks:
            raise
        raise OSError(
            f"{type(error).__name__}: {error!s:.300} The local cache has only "
            f"a part of it: it lacks {', '.join(lacks[:10])}."
        ) from error


def _cached(repository, revision):
    """The cached folder of a revision, perhaps incomplete, or None."""
    import huggingface_hub

    path = huggingface_hub.try_to_load_from_cache(
        repository, needed_files.CONFIG, revision=revision
    )
    return pathlib.Path(path).parent if isinstance(path, str) else None


def _from_kaggle(handle):
    import kagglehub  # A dependency of KerasHub.

    return kagglehub.model_download(handle)


DOWNLOADS = {"hf": _from_hugging_face, "kaggle": _from_kaggle}


def fetch(handle, asked, revision=None):
    """The folder of a handle, downloaded if it is not in the local cache.

    Files in the cache are used without asking the network, even for the
    branch `main`. To get a newer commit, name it, or download it with
    `huggingface_hub.snapshot_download`.

    Args:
        handle: str, `hf://user/model`, `hf://user/model@revision` (a branch,
            a tag, a commit or `refs/pr/2`), or
            `kaggle://user/model/keras/variant`. Any other text is returned.
        asked: str, the preset that the user named, for errors.
        revision: str, the part after the `@`, or None.

    Returns:
        str: path of a folder with configuration, tokenizer and weights, or
        `handle` itself.

    Raises:
        ValueError: a wrong handle or revision, or a failed download.

    Example:

    ```python
    fetch("hf://BridgeTower/bridgetower-base@main", "bridgetower_base")
    ```
    """
    scheme, _, name = handle.rpartition("://")
    if scheme == "hf":
        name = "@".join(filter(None, _parsed(name, asked, revision)))
    elif revision is not None:
        raise ValueError(
            "`revision` must be left out except with presets from Hugging "
            "Face's hub, such as 'hf://user/model'. Received: "
            f"revision={revision!r:.100}, preset={asked!r:.200}"
        )
    if scheme not in DOWNLOADS:
        return handle
    try:
        return DOWNLOADS[scheme](name)
    except Exception as error:  # Each hub has its own kinds of errors.
        said = " ".join(str(error).split()).rstrip(".")
        raise ValueError(
            f"`preset` needs the configuration, tokenizer and weights of "
            f"{name!r} from the hub {scheme!r}, which could not be fetched: "
            f"{type(error).__name__}: {said:.500}. Check the name and the "
            "connection, or fetch the repository elsewhere and pass the path "
            f"of its folder. Received: preset={asked!r}"
        ) from error


def _parsed(name, asked, revision):
    """The repository and the revision (or None) of a handle."""
    repository, at, written = name.partition("@")
    if at and revision is not None and revision != written:
        raise ValueError(
            "A revision must be given once, in the handle or by itself. "
            f"Received: preset={asked!r:.200}, revision={revision!r:.100}"
        )
    revision = written if at else revision
    named = _REPOSITORY.fullmatch(repository) and "--" not in repository
    if not named or ".." in repository or not _is_revision(revision):
        more = "" if revision is None else f", revision={revision!r:.100}"
        raise ValueError(
            "`preset` must be a handle 'hf://user/model' or "
            "'hf://user/model@revision', the revision a branch, a tag, a "
            f"commit or such as 'refs/pr/2'. Received: preset={asked!r:.200}"
            f"{more}"
        )
    return repository, revision


def _is_revision(value):
    """Whether a value may be the name of a revision, and part of a path."""
    return value is None or (
        isinstance(value, str)
        and _REVISION.fullmatch(value) is not None
        and ".." not in value
    )


def published(handle, revision=None):
    """The known checksums of the files behind a handle.

    Args:
        handle: str, as in `fetch`.
        revision: str or None, as in `fetch`.

    Returns:
        dict from the name of a file to the first digits of its SHA-256, in
        hexadecimal. It is empty for unknown repositories, and for all
        revisions except `main`.
    """
    if revision not in (None, MAIN):
        return {}
    handle = handle.removesuffix(f"@{MAIN}")
    for preset in PRESETS.values():
        if preset.handle == handle:
            return {WEIGHTS: preset.sha256}
    return {}
