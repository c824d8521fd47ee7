"""Free descriptions of photographs, for tests of search.

They are by somebody who saw the pictures under numbers, and neither their
names nor their files. Those of validation may choose settings.
"""

import json
import pathlib

from builders import FASTEST
from photo_world import things

pytestmark = FASTEST


def test_each_picture_of_the_test_is_described():
    world = things.load({"tuxpaint": "stamps", "gcompris": "data"})
    path = pathlib.Path(things.__file__).with_name("descriptions.json")
    told = json.loads(path.read_text(encoding="utf-8"))
    side = {one.id: one.split for table in world for one in table}
    assert set(told["test"]) == {i for i in side if side[i] == "test"}
    assert {side[i] for i in told["validation"]} == {"validation"}
    for texts in told.values():
        assert len(set(texts.values())) == len(texts)
        assert all(3 <= len(text.split()) <= 12 for text in texts.values())
