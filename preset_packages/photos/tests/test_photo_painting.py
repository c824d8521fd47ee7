"""Things that are painted in training have the color that is said of them."""

import colorsys

import numpy as np
from builders import FASTEST
from keras_bridgetower_photos.training import captions
from keras_bridgetower_photos.training import painting
from keras_bridgetower_photos.training import scenes
from PIL import ImageColor
from tiny_photos import DISKS
from tiny_photos import disks

pytestmark = FASTEST
# The least and the most of the value of a shade.
GRAYS = {"black": (0.0, 0.3), "gray": (0.3, 0.75), "white": (0.75, 1.0)}


def hue_apart(color, pixel):
    """Return the degrees between a pixel and a color of CSS."""
    name = {"brown": "saddlebrown", "purple": "darkorchid"}.get(color, color)
    named = np.array(ImageColor.getrgb(name)) / 255
    one, other = (360 * colorsys.rgb_to_hsv(*x)[0] for x in (named, pixel))
    apart = abs(one - other)
    return min(apart, 360 - apart)


def test_painted_things_look_as_they_are_called(tmp_path):
    maker = scenes.Scenes(disks(tmp_path), "train", side=112, painted=1.0)
    rng, natural = np.random.default_rng(2), {n: c for n, _, c in DISKS}
    found = set()
    for _ in range(300):
        scene = maker.draw(rng, "alone")
        (placed,) = scene.placed
        thing, (left, top, right, bottom) = placed
        if not thing.paint:
            assert thing.color == natural[thing.noun]
            continue
        assert thing.color == thing.paint != natural[thing.noun]
        found.add(thing.color)
        pixel = scene.picture[(top + bottom) // 2, (left + right) // 2] / 255
        _, saturation, value = colorsys.rgb_to_hsv(*pixel)
        if thing.color in GRAYS:
            low, high = GRAYS[thing.color]
            assert low <= value <= high and saturation * value < 0.15
        else:
            assert saturation > 0.15 and hue_apart(thing.color, pixel) < 45
        told = captions.tell(scene, {"color"}, rng)
        assert thing.color in told.replace("grey", "gray").lower()
    assert found == set(painting.PAINTS)
