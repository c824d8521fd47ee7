"""Downloads from the Hugging Face hub into its local cache."""

import hashlib
import os
import pathlib

from keras_bridgetower.presets import needed_files
from keras_bridgetower.presets.locks import locked

BLOCK = 1 << 20


def fetch(repository, revision):
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
    """Download a large file to the place of its content in the hub's cache.

    After an interruption `hf_hub_download` would start from the first byte
    again. Here it only has to link the finished file to its name.
    """
    repository = folder.parents[1]
    whole = repository / "blobs" / sha256
    part = whole.with_name(f"{sha256}.part.incomplete")
    locks = repository.parent / ".locks" / repository.name
    # The same lock that `hf_hub_download` uses in other processes.
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
    """Download the missing end of a file, and return its SHA-256."""
    from huggingface_hub import constants
    from huggingface_hub import get_session
    from huggingface_hub.utils import build_hf_headers
    from huggingface_hub.utils import hf_raise_for_status
    from huggingface_hub.utils import tqdm

    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(BLOCK):
        digest.update(block)
    # `disable=None` shows the bar on terminals only, as the hub does.
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
            # Compressed content could not be continued at a byte.
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
                        # The server ignores `Range` and sends the whole file.
                        file.seek(0)
                        file.truncate()
                        digest = hashlib.sha256()
                        bar.reset(size)
                    for block in response.iter_bytes(BLOCK):
                        file.write(block)
                        file.flush()
                        digest.update(block)
                        bar.update(len(block))
            except Exception as lost:  # Its type depends on the client.
                error = lost
            if file.tell() <= before:
                raise error
    return digest.hexdigest()
