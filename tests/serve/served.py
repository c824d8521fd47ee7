"""Presets and key of the server of the tests, and pictures to send."""

import asyncio
import base64
import functools
import io

from PIL import Image
from PIL import ImageDraw

FUSED = "bridgetower_tiny_easy_contrastive"
MATCHING = "bridgetower_tiny_easy_pretrain"
ASKING = "bridgetower_tiny_easy_vqa"
KEY = "a key of the tests"


def picture(colour="red", side=64):
    """The bytes of a picture with a shape, and the same in base64."""
    image = Image.new("RGB", (side, side), (230, 235, 240))
    ImageDraw.Draw(image).ellipse((16, 16, 44, 44), fill=colour)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue(), base64.b64encode(file.getvalue()).decode()


def in_loop(check):
    """Run an asynchronous test in a loop of its own, for at most a minute."""

    @functools.wraps(check)
    def test(*args, **kwargs):
        asyncio.run(asyncio.wait_for(check(*args, **kwargs), 60))

    return test
