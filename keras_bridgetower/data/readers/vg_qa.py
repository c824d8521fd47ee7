"""Questions of Visual Genome, as further training data for VQAv2."""

import functools
import random

from keras_bridgetower.data.readers.base import DataSet
from keras_bridgetower.data.readers.base import Split
from keras_bridgetower.data.readers.captions import GENOME_FOLDERS
from keras_bridgetower.data.readers.captions import COCOCaptions
from keras_bridgetower.data.readers.captions import genome_pictures
from keras_bridgetower.data.readers.files import check_row
from keras_bridgetower.data.readers.files import json_rows
from keras_bridgetower.data.readers.vqa import VQAv2
from keras_bridgetower.data.record_format import Draft
from keras_bridgetower.data.record_format import Sample
from keras_bridgetower.metrics.vqa_answers import normalize_answer

FILLED_TO = 5000  # pictures of test and of val


def _splits(prefix, words):
    return {
        "train": Split((f"{prefix}train",), f"{words} of train."),
        "validation": Split((f"{prefix}val",), f"{words} of val and test."),
    }


_ALL = _splits("vgqa_", "Questions about pictures")
_COCO = _splits("vgqa_coco_", "Questions about pictures that are in COCO")


class VGQA(DataSet):
    """Visual Genome's questions with the classes of VQAv2.

    A pair is kept if its normalised answer is a class and the question has
    one distinct such answer for that picture; repeated questions are kept
    once. Pictures that are also in COCO follow Karpathy's split; the others
    are shuffled and fill test and val to 5,000 each. The shuffle is ours, as
    that of the authors is told by its seed alone.

    `annotations/question_answers.json`, `image_data.json`, `VG_100K/`,
    `VG_100K_2/`; protocol `coco` takes the pictures that are in COCO only.

    Args:
        root: path of the folder of Visual Genome.
        coco: path of the folder with VQAv2's annotations and Karpathy's
            `dataset_coco.json`.
        min_count: as `VQAv2`.
    """

    task = "vqa"
    protocols = {"honest": _ALL, "official": _ALL, "coco": _COCO}
    sizes = {
        "vgqa_coco_train": (None, 429_061),
        "vgqa_coco_val": (None, 38_855),
        "vgqa_train": (None, 846_015),
        "vgqa_val": (None, 85_851),
    }
    questions = ("annotations/question_answers.json", "question_answers.json")

    def __init__(self, root, coco, min_count=9):
        super().__init__(root)
        self._vqa = VQAv2(coco, min_count)
        self._captions = COCOCaptions(coco)

    @property
    def labels(self):
        return self._vqa.labels

    def files(self, part):
        return (self.questions, ("image_data.json",), *GENOME_FOLDERS)

    def drafts(self, part):
        path = self.path(*self.questions)
        pairs = {"qa_id": int, "question": str, "answer": str}
        ids = {label: i for i, label in enumerate(self.labels)}
        wanted = self._images[part]
        find = genome_pictures(self)
        for row in json_rows(path, {"id": int, "qas": list}):
            if row["id"] not in wanted:
                continue
            for number, pair in enumerate(row["qas"]):
                place = f"the qas of picture {row['id']} in {path}"
                check_row(place, number, pair, pairs)
            name = f"{row['id']}.jpg"
            samples = tuple(_kept(row["qas"], ids))
            if samples:
                yield Draft(f"vg/{name}", (find(name),), samples, part)

    @functools.cached_property
    def _images(self):
        """From parts to the ids of their pictures."""
        path = self.path("image_data.json")
        rows = json_rows(path, {"image_id": int})
        place = self._karpathy()
        split = {
            row["image_id"]: place[row["coco_id"]]
            for row in rows
            if row.get("coco_id") in place
        }
        coco = {
            name: {image for image, s in split.items() if s == name}
            for name in ("train", "val", "test")
        }
        rest = [r["image_id"] for r in rows if r["image_id"] not in split]
        random.Random(0).shuffle(rest)
        filled = dict(coco)
        for name in ("test", "val"):
            count = max(0, FILLED_TO - len(coco[name]))
            filled[name] = coco[name] | set(rest[:count])
            rest = rest[count:]
        filled["train"] = coco["train"] | set(rest)
        return {
            f"vgqa_{kind}{name}": images[name] | images.get(also, set())
            for kind, images in (("", filled), ("coco_", coco))
            for name, also in (("train", None), ("val", "test"))
        }

    def _karpathy(self):
        path = self._captions.path(*self._captions.annotations)
        rows = json_rows(path, {"cocoid": int, "split": str}, "images")
        return {
            row["cocoid"]: row["split"].replace("restval", "train")
            for row in rows
        }


def _kept(pairs, ids):
    """The samples of a picture: questions with one answer that is a class."""
    answers, asked = {}, {}
    for pair in pairs:
        answer = normalize_answer(pair["answer"])
        if answer in ids:
            answers.setdefault(pair["question"], set()).add(answer)
            asked.setdefault(pair["question"], pair)
    for question, pair in asked.items():
        if len(answers[question]) == 1:
            (answer,) = answers[question]
            yield Sample(f"vg{pair['qa_id']}", question, (ids[answer],), (1.0,))
