"""Fetch the packages with photographs and with two encoders, by apt and pip.

    python -m keras_bridgetower_photos.training.packages runs/photos/packages

`packages.json` lists them with their sums, licenses and authors; `credits.py`
names the author of each picture. The first two are packages of Debian.
"""

import pathlib
import shutil

from keras_bridgetower_drawings.training.emoji import packages

from keras_bridgetower_photos.training import qt_resources

PACKAGES = packages.listed(pathlib.Path(__file__).with_suffix(".json"))


def fetch(folder):
    """Fetch, check and unpack what is not there yet."""
    folders = packages.fetch(folder, PACKAGES)
    unpack_pictures(folders["gcompris"])
    return folders


def unpack_pictures(gcompris):
    """Write the pictures in the resource files of GCompris to `pictures`."""
    target = gcompris / "pictures"
    if target.is_dir():
        return
    unfinished = target.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for resource in sorted(gcompris.rglob("*.rcc")):
        for path, body in qt_resources.files(resource):
            if path.endswith(".webp"):
                file = unfinished / path.removeprefix("gcompris/")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(body)
    unfinished.rename(target)


if __name__ == "__main__":
    packages.main(__doc__, fetch, PACKAGES)
