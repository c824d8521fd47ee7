"""Collect pictures from outside the photo world, to test rejection.

Noise, patterns and text are generated; drawings and paintings come from the
packages, photographs of surfaces, tissue and pages from scikit-image.
"""

import io
import pathlib
import re

import numpy as np
import resvg_py
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont
from PIL import ImageOps
from skimage import data

from keras_bridgetower_photos.training import qt_resources
from keras_bridgetower_photos.training import things

SEED, TRAINING_SEED = 7, 8
# How many pictures of a kind, where there are more.
COUNT = 24
PIECE = "piece of a painting"
# Kinds that training shows, in other pictures, and of other paintings.
TAUGHT = (
    *("noise", "gradient", "texture", "cartoon", "drawing", "symbol", PIECE),
)
PHOTOGRAPHS = (
    *("brick", "cell", "clock", "grass", "gravel", "immunohistochemistry"),
    *("microaneurysms", "page", "retina", "text"),
)
# Activities of GCompris whose sign shows a board, a circuit or a diagram.
SIGNS = (
    *("algebra_plus", "align4", "analog_electricity", "binary_bulb"),
    *("calcudoku", "calendar", "checkers", "chess", "comparator"),
    *("digital_electricity", "fifteen", "fractions_create", "geo-country"),
    *("graduated_line_read", "graph-coloring", "hexagon", "learn_decimals"),
    *("maze", "nine_men_morris", "oware", "sudoku", "superbrain"),
    *("tangram", "tic_tac_toe"),
)


def unknown(folders, side=224):
    """Return `(name, kind, picture)`, each an RGB square of `side` pixels.

    `folders` are those of `packages.fetch`, perhaps with "noto" of
    the emoji's `packages`. Each call returns the same.
    """
    found = _made(MAKERS, COUNT, np.random.default_rng(SEED), side)
    images = [
        (path.stem, kind, Image.open(path))
        for kind, paths in _files(folders).items()
        for path in _spread(sorted(paths))
    ]
    images += [(name, "sign", _sign(folders, name, side)) for name in SIGNS]
    images += [
        (name, "photograph", Image.fromarray(getattr(data, name)()))
        for name in PHOTOGRAPHS
    ]
    return found + [
        (name, kind, _square(image, side)) for name, kind, image in images
    ]


def outliers(folders, side=224):
    """Return other pictures of the kinds in `TAUGHT`, as `unknown` does.

    Training shows them as what is not known; the other kinds are only tested.
    """
    makers = {kind: make for kind, make in MAKERS.items() if kind in TAUGHT}
    rng = np.random.default_rng(TRAINING_SEED)
    found = _made(makers, 2 * COUNT, rng, side)
    for photograph in things.load(folders).photographs:
        if photograph.split == "train":
            picture = texture(things.picture(photograph), rng, side)
            found.append((photograph.id, "texture", picture))
    for kind, paths in _files(folders).items():
        paths = sorted(paths) if kind in TAUGHT else []
        of = _painting if kind == PIECE else lambda path: path.stem
        tested = {of(path) for path in _spread(paths)} if paths else {}
        found += [
            (path.stem, kind, _square(Image.open(path), side))
            for path in paths
            if of(path) not in tested
        ]
    return found


def _painting(piece):
    """Return the painting of a piece, whose name ends in where it is."""
    return re.sub(r"[-_]?[a-z]?\d+$", "", piece.stem)


def _made(makers, count, rng, side):
    return [
        (f"{kind} {number}", kind, make(rng, side))
        for kind, make in makers.items()
        for number in range(count)
    ]


def _files(folders):
    """Return the files of the packages' pictures by kind."""
    stamps = things.stamps(folders)
    pictures = pathlib.Path(folders["gcompris"]) / "pictures/src/activities"
    photographs = {row["id"] for row in things.rows("photographs.csv")}
    found = {
        "cartoon": stamps.rglob("cartoon/**/*.png"),
        "symbol": [
            path
            for folder in ("alphabets", "chess", "math", "music")
            for path in (stamps / "symbols" / folder).rglob("*.png")
        ],
        "drawing": (pictures / "lang").rglob("*.webp"),
        PIECE: (pictures / "paintings").rglob("*.webp"),
        "painting": [
            path
            for path in (pictures / "details").rglob("*_background.webp")
            if f"details/image/{path.stem}" not in photographs
        ],
        "hand": (pictures / "leftright").rglob("*.webp"),
    }
    if "noto" in folders:
        emoji = pathlib.Path(folders["noto"]) / "package/img/google/64"
        found["emoji"] = emoji.glob("*.png")
    return found


def _spread(paths):
    count = min(COUNT, len(paths))
    return [paths[i * len(paths) // count] for i in range(count)]


def _sign(folders, name, side):
    resource = f"usr/share/gcompris-qt/rcc/{name}.rcc"
    for path, body in qt_resources.files(folders["gcompris"] / resource):
        if path.endswith(f"/{name}.svg"):
            svg = body.decode("utf-8")
            drawn = resvg_py.svg_to_bytes(svg_string=svg, width=side)
            return Image.open(io.BytesIO(bytes(drawn)))


def _square(image, side):
    """Put a picture on white paper; one without transparency is cropped."""
    if not image.has_transparency_data:
        return ImageOps.fit(image.convert("RGB"), (side, side))
    image = ImageOps.contain(image.convert("RGBA"), (side, side))
    paper = Image.new("RGBA", (side, side), "white")
    place = (side - image.width) // 2, (side - image.height) // 2
    paper.alpha_composite(image, place)
    return paper.convert("RGB")


def noise(rng, side):
    """Return random pixels, of one to thirty-two pixels a grain."""
    grains = side // int(2 ** rng.integers(6))
    shape = (grains, grains, 3 if rng.random() < 0.5 else 1)
    values = np.broadcast_to(rng.random(shape), (grains, grains, 3))
    image = _image(values)
    return image.resize((side, side), Image.Resampling(rng.choice([0, 3])))


def gradient(rng, side):
    """Return one color that becomes another, along a line or from a point."""
    x, y = _places(rng, side)
    way = x if rng.random() < 0.5 else np.hypot(x, y)
    return _blend(rng, (way - way.min()) / np.ptp(way))


def pattern(rng, side):
    """Return stripes, checkers or waves in two colors."""
    x, y = _places(rng, side) * rng.uniform(10, 60)
    ways = (np.sin(x), np.sin(x) * np.sin(y), np.sin(x + 3 * np.sin(y / 3)))
    way = ways[rng.integers(len(ways))]
    return _blend(rng, way > 0 if rng.random() < 0.5 else (way + 1) / 2)


def page(rng, side):
    """Return lines of made-up words in black on white."""
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image)
    size = int(rng.integers(side // 20, side // 6))
    font = ImageFont.load_default(size)
    letters = list("aabcdeeefghiijklmnnoopqrssttuvwxyz" + " " * 6)
    for top in range(size, side - size, size * 3 // 2):
        line = "".join(rng.choice(letters, int(rng.integers(10, 40))))
        draw.text((size, top), line, "black", font)
    return image


def texture(photograph, rng, side):
    """Return a small piece of a photograph and its mirror images, as tiles."""
    size = int(rng.integers(side // 8, side // 2))
    image = ImageOps.fit(photograph, (side, side))
    left, top = (int(at) for at in rng.integers(side - size + 1, size=2))
    piece = np.asarray(image.crop((left, top, left + size, top + size)))
    count = -(-side // size)
    tiles = np.pad(piece, [(0, (count - 1) * size)] * 2 + [(0, 0)], "symmetric")
    return Image.fromarray(tiles[:side, :side])


MAKERS = {f.__name__: f for f in (noise, gradient, pattern, page)}


def _places(rng, side):
    """Return x and y of each pixel, turned by a random angle."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    turned = np.exp(1j * angle) * (x + 1j * y)
    return np.stack([turned.real, turned.imag])


def _blend(rng, share):
    """Return two random colors, by the share of the second at each pixel."""
    first, second = rng.random((2, 3))
    return _image(first + (second - first) * share[..., None])


def _image(values):
    return Image.fromarray(np.uint8(np.rint(255 * values)))
