"""Handles such as `hf://user/model`: downloads, and the local cache."""

import os
import pathlib
import re

from keras_bridgetower import files
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
    """Return the folder of a repository, from the cache or the network."""
    repository, _, revision = handle.partition("@")
    revision = revision or MAIN
    folder = _cached(repository, revision)
    lacks = needed_files.lacking(folder) if folder else []
    if folder and not lacks:
        return str(folder)
    try:
        return download(repository, revision)
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
    """Return the cached folder of a revision, perhaps incomplete, or None."""
    import huggingface_hub

    path = huggingface_hub.try_to_load_from_cache(
        repository, needed_files.CONFIG, revision=revision
    )
    return pathlib.Path(path).parent if isinstance(path, str) else None


def _from_kaggle(handle):
    import kagglehub  # A dependency of KerasHub.

    return kagglehub.model_download(handle)


DOWNLOADS = {"hf": _from_hugging_face, "kaggle": _from_kaggle}


def fetch(handle, preset, revision=None):
    """Return the folder of a handle, downloaded if it is not cached.

    Files in the cache are used without asking the network, even for the
    branch `main`. To get a newer commit, name it, or download it with
    `huggingface_hub.snapshot_download`.

    Args:
        handle: str, `hf://user/model`, `hf://user/model@revision` (a branch,
            a tag, a commit or `refs/pr/2`), or
            `kaggle://user/model/keras/variant`. Any other text is returned.
        preset: str, the preset that the user named, for errors.
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
        name = "@".join(filter(None, _parsed(name, preset, revision)))
    elif revision is not None:
        raise ValueError(
            "`revision` can only be used with presets from Hugging Face's "
            "hub, such as 'hf://user/model'. Received: "
            f"revision={revision!r:.100}, preset={preset!r:.200}"
        )
    if scheme not in DOWNLOADS:
        return handle
    try:
        return DOWNLOADS[scheme](name)
    except Exception as error:  # Each hub has its own kinds of errors.
        message = " ".join(str(error).split()).rstrip(".")
        raise ValueError(
            f"`preset` needs the configuration, tokenizer and weights of "
            f"{name!r} from the hub {scheme!r}, which could not be fetched: "
            f"{type(error).__name__}: {message:.500}. Check the name and the "
            "connection, or fetch the repository elsewhere and pass the path "
            f"of its folder. Received: preset={preset!r}"
        ) from error


def _parsed(name, preset, revision):
    """Split a handle into the repository and the revision, or None."""
    repository, at, written = name.partition("@")
    if at and revision is not None and revision != written:
        raise ValueError(
            "A revision must be given once, in the handle or as `revision`. "
            f"Received: preset={preset!r:.200}, revision={revision!r:.100}"
        )
    revision = written if at else revision
    named = _REPOSITORY.fullmatch(repository) and "--" not in repository
    if not named or ".." in repository or not _is_revision(revision):
        more = "" if revision is None else f", revision={revision!r:.100}"
        raise ValueError(
            "`preset` must be a handle 'hf://user/model' or "
            "'hf://user/model@revision', the revision a branch, a tag, a "
            f"commit or such as 'refs/pr/2'. Received: preset={preset!r:.200}"
            f"{more}"
        )
    return repository, revision


def _is_revision(value):
    """Return True for the name of a revision that is safe in a path."""
    return value is None or (
        isinstance(value, str)
        and _REVISION.fullmatch(value) is not None
        and ".." not in value
    )


def published(handle, revision=None):
    """Return the known checksums of the files of a handle.

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
    for known in PRESETS.values():
        if known.handle == handle:
            return {WEIGHTS: known.sha256}
    return {}


def download(repository, revision):
    """Download the needed files of a revision into the hub's local cache.

    Weights are downloaded last, so a folder that has weights is complete. If
    a download of weights is interrupted, the next call continues it.

    Args:
        repository: str, `user/model`.
        revision: str, a branch, tag or commit.

    Returns:
        str, path of the revision's folder in the cache.

    Raises:
        Exception: an error of the hub's client, of any kind. Without a
            connection, it is raised after one attempt.
    """
    import huggingface_hub
    from huggingface_hub import constants

    # One request without retries, which fails soon without a connection.
    info = huggingface_hub.HfApi().model_info(
        repository,
        revision=revision,
        files_metadata=True,
        timeout=constants.HF_HUB_ETAG_TIMEOUT,
    )
    found = {file.rfilename: file for file in info.siblings}
    if needed_files.CONFIG not in found:
        raise FileNotFoundError("The repository holds no config.json.")

    def get(name, revision=info.sha):
        return huggingface_hub.hf_hub_download(
            repository, name, revision=revision
        )

    # By the revision's name, so that the cache learns the commit of it.
    get(needed_files.CONFIG, revision)
    folder = pathlib.Path(get(needed_files.CONFIG)).parent
    for name in needed_files.beside_weights(folder, set(found)):
        get(name)
    for name in needed_files.weights(folder, set(found)):
        file = found.get(name)
        if file is None or (folder / name).is_file():
            continue  # The reader of an index reports files that are missing.
        if file.lfs is not None:
            url = huggingface_hub.hf_hub_url(
                repository, name, revision=info.sha
            )
            _fetch_blob(folder, url, name, file.lfs.sha256, file.lfs.size)
        get(name)
    return str(folder)


def _fetch_blob(folder, url, name, sha256, size):
    """Download a large file to its place in the hub's cache.

    After an interruption `hf_hub_download` would start again from the first
    byte. Here it only links the finished file to its name.
    """
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    repository = folder.parents[1]
    whole = repository / "blobs" / sha256
    part = whole.with_name(f"{sha256}.part.incomplete")
    locks = repository.parent / ".locks" / repository.name
    # The same lock that `hf_hub_download` uses in other processes.
    with files.locked(locks / f"{sha256}.lock"):
        if whole.is_file():
            return
        whole.parent.mkdir(parents=True, exist_ok=True)
        # Compressed content could not be continued at a byte.
        headers = build_hf_headers() | {"Accept-Encoding": "identity"}
        with open(part, "ab", buffering=0) as file:
            http_get(
                url,
                file,
                resume_size=file.tell(),
                headers=headers,
                expected_size=size,
                displayed_filename=name,
            )
            os.fsync(file.fileno())
        digest = files.sha256(part)
        if digest != sha256:
            part.unlink()
            raise OSError(
                f"{name} arrived damaged, with the SHA-256 {digest:.16}... "
                f"instead of {sha256:.16}..., and was removed."
            )
        part.replace(whole)
