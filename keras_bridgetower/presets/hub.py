"""Downloads handles such as `hf://user/model` to the local cache."""

import pathlib
import re

from keras_bridgetower import files
from keras_bridgetower import object_stores
from keras_bridgetower.presets import needed_files
from keras_bridgetower.presets import stores
from keras_bridgetower.presets.table import PRESETS

MAIN = "main"
# The weight file of the published repositories.
WEIGHTS = "pytorch_model.bin"
# It becomes part of a path in the cache.
_REVISION = re.compile(r"(?!.*\.\.)\w[\w.+/-]*", re.ASCII)


def _from_hugging_face(handle):
    """Return the folder of a repository, from the cache or the network."""
    import huggingface_hub

    repository, at, revision = handle.partition("@")
    revision = revision if at else MAIN
    if not _REVISION.fullmatch(revision):
        raise ValueError("A revision is a branch, a tag, a commit or a ref.")
    config = huggingface_hub.try_to_load_from_cache(
        repository, needed_files.CONFIG, revision=revision
    )
    folder = isinstance(config, str) and pathlib.Path(config).parent
    lacks = folder and needed_files.lacking(folder)
    if folder and not lacks:
        return str(folder)
    try:
        return download(repository, revision)
    except Exception:
        if lacks == [needed_files.TOKENIZER]:
            # The repository may have no tokenizer; a task reports that.
            return str(folder)
        raise


def _from_kaggle(handle):
    import kagglehub  # A dependency of KerasHub.

    return kagglehub.model_download(handle)


DOWNLOADS = {"hf": _from_hugging_face, "kaggle": _from_kaggle}


def fetch(handle, preset, revision=None):
    """Return the folder of a handle, downloaded if it is not cached.

    Cached files are used without asking the network, even for the branch
    `main`. To get a newer commit, name it, or download it with
    `huggingface_hub.snapshot_download`.

    Args:
        handle: str, `hf://user/model`, `hf://user/model@revision` (a branch,
            a tag, a commit or `refs/pr/2`),
            `kaggle://user/model/keras/variant`, or the URL of a preset in an
            object store. Any other text is returned unchanged.
        preset: str, the preset that the user named, for errors.
        revision: str, the part after the `@`, or None.

    Returns:
        str: path of a folder with configuration, tokenizer and weights, or
        `handle` itself.

    Raises:
        ValueError: a wrong handle or revision, or a failed download.
    """
    scheme, _, name = handle.rpartition("://")
    shown = object_stores.hide(preset)
    if revision is not None:
        if scheme != "hf" or "@" in name:
            raise ValueError(
                "`revision` can only be used with a handle 'hf://user/model' "
                f"without one. Received: {revision=}, preset={shown!r:.200}"
            )
        name = f"{name}@{revision}"
    try:
        if scheme in DOWNLOADS:
            return DOWNLOADS[scheme](name)
        return stores.fetch(handle) if object_stores.is_url(handle) else handle
    except Exception as error:  # Each hub has its own kinds of errors.
        message = " ".join(object_stores.hide(error).split())
        raise ValueError(
            f"`preset` {shown!r:.200} could not be fetched: "
            f"{type(error).__name__}: {message:.500} Check the name and the "
            "connection, or pass the path of a folder with its files."
        ) from error


def published(handle, revision=None):
    """Return the known checksums of the files of a handle.

    Args:
        handle, revision: as in `fetch`.

    Returns:
        dict from the name of a file to the first digits of its SHA-256, in
        hexadecimal. It is empty for unknown repositories, and for all
        revisions except `main`.
    """
    name, _, written = handle.partition("@")
    if (revision or written or MAIN) != MAIN:
        return {}
    known = [preset for preset in PRESETS.values() if preset.handle == name]
    return {WEIGHTS: known[0].sha256} if known else {}


def download(repository, revision):
    """Download the needed files of a revision into the hub's local cache.

    Weights come last, so a folder with weights is complete. Any error of the
    hub's client may be raised, without a connection after one attempt.

    Args:
        repository: str, `user/model`.
        revision: str, a branch, tag or commit.

    Returns:
        str, path of the revision's folder in the cache.
    """
    import huggingface_hub
    from huggingface_hub import constants

    # A single request, which fails fast without a connection.
    info = huggingface_hub.HfApi().model_info(
        repository,
        revision=revision,
        files_metadata=True,
        timeout=constants.HF_HUB_ETAG_TIMEOUT,
    )
    found = {file.rfilename: file for file in info.siblings}

    def get(name, revision=info.sha):
        path = huggingface_hub.hf_hub_download(
            repository, name, revision=revision
        )
        return pathlib.Path(path)

    # By the revision's name, so that the cache stores its commit.
    get(needed_files.CONFIG, revision)
    folder = get(needed_files.CONFIG).parent
    for name in needed_files.beside_weights(folder, set(found)):
        get(name)
    # The reader of an index reports files that are missing.
    for name in filter(found.get, needed_files.weights(folder, set(found))):
        if not (folder / name).is_file():
            _check_download(get(name), found[name].lfs)
    return str(folder)


def _check_download(path, lfs):
    """Remove a file that differs from the checksum that the hub has of it."""
    # The hub's client compares sizes alone (huggingface_hub 2.4).
    if lfs is not None and files.sha256(path) != lfs.sha256:
        path.resolve().unlink()
        path.unlink()
        raise OSError(f"{path.name} arrived damaged and was removed.")
