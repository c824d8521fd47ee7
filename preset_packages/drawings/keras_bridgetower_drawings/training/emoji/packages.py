"""Fetch the packages with drawings, words and a teacher, by npm and pip.

    python -m keras_bridgetower_drawings.training.emoji.packages FOLDER

`packages.json` lists them with their sums, licenses and authors.
"""

import hashlib
import json
import pathlib
import shutil
import subprocess
import sys
from typing import NamedTuple

from keras_bridgetower_drawings.training import reports


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
    archive = _archive(package, target.parent)
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != package.sha256:
        raise ValueError(
            f"{archive.name} is not the archive that was used. Received: "
            f"sha256 {found}, expected {package.sha256}. Remove it to fetch "
            "it again, or review the changes and update `PACKAGES`"
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


def _archive(package, folder):
    """Return the archive of a package; download it if it is missing."""
    name, version = package.name, package.version
    archive, *command = {
        "npm": (
            f"{name.lstrip('@').replace('/', '-')}-{version}.tgz",
            *("npm", "pack", f"{name}@{version}"),
        ),
        "pypi": (
            f"{name.replace('-', '_')}-{version}-*.whl",
            *(sys.executable, "-m", "pip", "download", "--no-deps"),
            f"{name}=={version}",
        ),
        "apt": (
            f"{name}_{version}_all.deb",
            *("apt-get", "download", f"{name}={version}"),
        ),
    }[package.registry]
    if not any(folder.glob(archive)):
        _run(*command, cwd=folder)
    return next(folder.glob(archive))


def _run(*command, cwd):
    subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.DEVNULL)


def main(doc, fetch, packages):
    """Fetch packages into a folder, and print their credits."""
    for key, folder in fetch(reports.parser(doc).parse_args().folder).items():
        package = packages[key]
        print(f"{folder}: {package.credit} ({package.licence})")


if __name__ == "__main__":
    main(__doc__, fetch, PACKAGES)
