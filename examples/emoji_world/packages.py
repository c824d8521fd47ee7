r"""Fetch the packages with drawings, words and a teacher, by npm and pip.

    PYTHONPATH=examples python -m emoji_world.packages runs/emoji/packages

`packages.json` lists them with their sums, licenses and authors.
"""

import argparse
import hashlib
import json
import pathlib
import shutil
import subprocess
import sys
from typing import NamedTuple


class Package(NamedTuple):
    """One package of a registry."""

    registry: str  # "npm", "pypi" or "apt".
    name: str
    version: str
    sha256: str  # Of the archive, in hexadecimal.
    licence: str  # Of the parts used.
    credit: str  # The authors.


def listed(path):
    """Read the packages that a JSON file lists."""
    told = json.loads(pathlib.Path(path).read_text())
    return {key: Package(**fields) for key, fields in told.items()}


PACKAGES = listed(pathlib.Path(__file__).with_suffix(".json"))


def fetch(folder, packages=PACKAGES):
    """Fetch, check and unpack what is not there yet."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return {key: _unpacked(p, folder / key) for key, p in packages.items()}


def _unpacked(package, target):
    if target.is_dir():
        return target
    fetch_one = {"npm": _npm, "pypi": _pypi, "apt": _apt}[package.registry]
    archive = fetch_one(package, target.parent)
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
        shutil.unpack_archive(archive, unfinished, "zip")
    elif archive.suffix == ".deb":
        names = (archive.name, unfinished.name)
        _run("dpkg", "-x", *names, cwd=target.parent)
    else:
        shutil.unpack_archive(archive, unfinished, "gztar", filter="data")
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
    wheels = f"{name}-{package.version}-*.whl"
    if not any(folder.glob(wheels)):
        wanted = f"{package.name}=={package.version}"
        pip = (sys.executable, "-m", "pip", "download", "--no-deps", wanted)
        _run(*pip, cwd=folder)
    return next(folder.glob(wheels))


def _apt(package, folder):
    archive = folder / f"{package.name}_{package.version}_all.deb"
    if not archive.exists():
        wanted = f"{package.name}={package.version}"
        _run("apt-get", "download", wanted, cwd=folder)
    return archive


def _run(*command, cwd):
    subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.DEVNULL)


def main(about, fetch, packages):
    """Fetch packages into the folder that the command line names.

    Args:
        about: str, what the command says of itself, in its first line.
        fetch: function of a folder that returns a folder for each package.
        packages: dict from the same keys to `Package`.
    """
    parser = argparse.ArgumentParser(description=about.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    for key, folder in fetch(parser.parse_args().folder).items():
        package = packages[key]
        print(f"{folder}: {package.credit} ({package.licence})")


if __name__ == "__main__":
    main(__doc__, fetch, PACKAGES)
