"""Hubs: handles, what is in the local cache, what is fetched."""

import pathlib
import re

from keras_bridgetower.presets import downloads
from keras_bridgetower.presets import needed_files
from keras_bridgetower.presets.table import PRESETS

MAIN = "main"
# Of the published repositories.
WEIGHTS = "pytorch_model.bin"
# As the hub names users and models, and git its branches, tags and commits.
_NAME = r"\w(?:[\w.-]*\w)?"
_REPOSITORY = re.compile(rf"(?:{_NAME}/)?{_NAME}", re.ASCII)
_REVISION = re.compile(r"\w[\w.+-]*(?:/\w[\w.+-]*)*", re.ASCII)


def _from_hugging_face(handle):
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
            return str(folder)  # It may have none; a task says so.
        if not lacks:
            raise
        raise OSError(
            f"{type(error).__name__}: {error!s:.300} The local cache has only "
            f"a part of it: it lacks {', '.join(lacks[:10])}."
        ) from error


def _cached(repository, revision):
    """The folder of a revision in the local cache, whole or not, or None."""
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
    """The folder of a handle; other names as they are.

    What lies in the local cache of the hub is used without asking the
    network, `main` too. To get a newer one, name its commit, or fetch it with
    `huggingface_hub.snapshot_download`.

    Args:
        handle: str, `hf://user/model`, `hf://user/model@revision` (a branch,
            a tag, a commit or `refs/pr/2`), `kaggle://user/model/keras/variant`,
            or anything else.
        asked: str, the preset that the user named, for errors.
        revision: str, as after the `@`.

    Returns:
        str: path of a folder that holds configuration, tokenizer and weights,
        or `handle` itself.

    Raises:
        ValueError: no such handle or revision, or it cannot be fetched.

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
    """The repository and the revision, None if none is given, of a handle."""
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
    """Whether git takes it for one; it becomes a part of paths, too."""
    return value is None or (
        isinstance(value, str)
        and _REVISION.fullmatch(value) is not None
        and ".." not in value
    )


def published(handle, revision=None):
    """What is known of the files behind a handle.

    Args:
        handle: str, as `fetch` takes it.
        revision: str, likewise.

    Returns:
        dict from the name of a file to the first digits of its SHA-256, in
        hexadecimal. Empty where nothing is known, as of any revision but the
        main one.
    """
    if revision not in (None, MAIN):
        return {}
    handle = handle.removesuffix(f"@{MAIN}")
    for preset in PRESETS.values():
        if preset.handle == handle:
            return {WEIGHTS: preset.sha256}
    return {}
