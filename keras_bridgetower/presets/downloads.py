"""Files of Hugging Face's hub, brought into its own local cache."""

import hashlib
import os
import pathlib

from keras_bridgetower.presets import needed_files
from keras_bridgetower.presets.locks import locked

BLOCK = 1 << 20


def fetch(repository, revision):
    """Bring what is needed of a revision into the local cache of the hub.

    The weights come last, so that a folder with weights has all there is. Of
    them a part that has come is kept, and the next call goes on from there.

    Args:
        repository: str, `user/model`.
        revision: str, a branch, tag or commit.

    Returns:
        str: the folder of the revision in the cache.

    Raises:
        Exception: of any kind. Where there is no connection, the first and
            only attempt has failed.
    """
    import huggingface_hub
    from huggingface_hub import constants

    # One request, which is not repeated: whether there is a connection.
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

    get(
        needed_files.CONFIG, revision
    )  # So the cache knows the revision's commit.
    folder = pathlib.Path(get(needed_files.CONFIG)).parent
    for name in needed_files.beside_weights(folder, set(found)):
        get(name)
    for name in needed_files.weights(folder, set(found)):
        file = found.get(name)
        if file is None or (folder / name).is_file():
            continue  # What an index names in vain, its reader will say.
        if file.lfs is not None:
            url = huggingface_hub.hf_hub_url(
                repository, name, revision=info.sha
            )
            _fetch_blob(folder, url, name, file.lfs.sha256, file.lfs.size)
        get(name)
    return str(folder)


def _fetch_blob(folder, url, name, sha256, size):
    """Bring a large file to where the cache of the hub expects its content.

    `hf_hub_download` then only gives it its name. By itself it would start
    from the first byte again after an interruption.
    """
    repository = folder.parents[1]
    whole = repository / "blobs" / sha256
    part = whole.with_name(f"{sha256}.part.incomplete")
    locks = repository.parent / ".locks" / repository.name
    # The lock of `hf_hub_download`, for others who fetch the same.
    with locked(locks / f"{sha256}.lock"):
        if whole.is_file():
            return
        whole.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "a+b") as file:
            digest = _receive(file, url, name, size)
            os.fsync(file.fileno())
        if digest != sha256:
            part.unlink()
            raise OSError(
                f"{name} has come damaged, with the SHA-256 {digest:.16}... "
                f"instead of {sha256:.16}..., and was removed."
            )
        part.replace(whole)


def _receive(file, url, name, size):
    """Append what a file lacks until it has its size; its SHA-256."""
    from huggingface_hub import constants
    from huggingface_hub import get_session
    from huggingface_hub.utils import build_hf_headers
    from huggingface_hub.utils import hf_raise_for_status
    from huggingface_hub.utils import tqdm

    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(BLOCK):
        digest.update(block)
    # `disable=None`: on terminals only, as the hub's own bars.
    with tqdm(
        desc=name,
        total=size,
        initial=file.tell(),
        unit="B",
        unit_scale=True,
        disable=None,
    ) as bar:
        while (before := file.tell()) < size:
            error = OSError(f"The connection ended after {before} bytes.")
            # Else bytes might come compressed, of which no part has a number.
            headers = build_hf_headers() | {"Accept-Encoding": "identity"}
            if before:
                headers["Range"] = f"bytes={before}-"
            try:
                with get_session().stream(
                    "GET",
                    url,
                    headers=headers,
                    timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
                    follow_redirects=True,
                ) as response:
                    hf_raise_for_status(response)
                    if before and response.status_code != 206:
                        # It gives no parts: all comes again.
                        file.seek(0)
                        file.truncate()
                        digest = hashlib.sha256()
                        bar.reset(size)
                    for block in response.iter_bytes(BLOCK):
                        file.write(block)
                        file.flush()
                        digest.update(block)
                        bar.update(len(block))
            except Exception as lost:  # As its client calls it.
                error = lost
            if file.tell() <= before:
                raise error
    return digest.hexdigest()
