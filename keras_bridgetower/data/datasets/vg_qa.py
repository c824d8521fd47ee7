"""Reader of Visual Genome's questions: additional training data for VQAv2."""

import functools
import random

from keras_bridgetower.data.datasets.base import DataSet
from keras_bridgetower.data.datasets.base import Split
from keras_bridgetower.data.datasets.captions import GENOME_FOLDERS
from keras_bridgetower.data.datasets.captions import COCOCaptions
from keras_bridgetower.data.datasets.captions import genome_pictures
from keras_bridgetower.data.datasets.tables import check_row
from keras_bridgetower.data.datasets.tables import json_rows
from keras_bridgetower.data.datasets.vqa import VQAv2
from keras_bridgetower.data.records.format import Draft
from keras_bridgetower.data.records.format import Sample
from keras_bridgetower.files import Below
from keras_bridgetower.metrics.vqa import normalize_answer

# Number of pictures in the test and in the validation set.
TEST_AND_VAL_SIZE = 5000

# End of the name of the training part without pictures of val2014.
NO_VAL = "_no_val2014"


def _splits(train, val, words, leak=""):
    return {
        "train": Split((train,), f"Questions about {words}.", leak),
        "validation": Split(
            (val,), "Questions about pictures of val and test."
        ),
    }


PROTOCOLS = {
    "honest": _splits(
        f"vgqa_train{NO_VAL}",
        "vgqa_val",
        "pictures of train, without those of val2014, on which VQAv2 is "
        "validated",
    ),
    "official": _splits(
        "vgqa_train", "vgqa_val", "pictures of train, many of val2014"
    ),
    "coco": _splits(
        "vgqa_coco_train",
        "vgqa_coco_val",
        "pictures of train that are in COCO, many of val2014",
    ),
}
# Arrow tables do not say which of their pictures are in COCO.
TABLE_PROTOCOLS = PROTOCOLS | {
    "honest": _splits(
        "vgqa_train",
        "vgqa_val",
        "pictures of train",
        "many of the pictures are of val2014, the honest validation of VQAv2, "
        "and the table does not say which.",
    )
}


class VGQA(DataSet):
    """Visual Genome's questions with the classes of VQAv2.

    A question is kept if its normalised answer is a class, and if the picture
    has no second answer for the same question that is a class. Repeated
    questions are kept once.

    Pictures that are also in COCO are in the set that Karpathy put them in.
    The others are shuffled; they fill the test and the validation set to
    5,000 pictures each, and the rest is for training. The authors' shuffle
    cannot be repeated, since only its seed is known.

    Karpathy's training set holds most of val2014, which is the honest
    validation set of VQAv2. Honest training leaves these pictures out. The
    protocol `coco` takes only pictures that are in COCO.

    Files: `annotations/question_answers.json`, `image_data.json`, `VG_100K/`,
    `VG_100K_2/`.

    Args:
        root: path of the folder of Visual Genome.
        coco: path of the folder with VQAv2's annotations and Karpathy's
            `dataset_coco.json`. There is no default.
        min_count: int, as for `VQAv2`.
        outside: bool, as for `DataSet`.
    """

    task = "vqa"
    protocols = PROTOCOLS
    sizes = {
        "vgqa_coco_train": (None, 429_061),
        "vgqa_coco_val": (None, 38_855),
        "vgqa_train": (None, 846_015),
        "vgqa_val": (None, 85_851),
    }
    questions = ("annotations/question_answers.json", "question_answers.json")

    def __init__(self, root, coco=None, min_count=9, outside=False):
        super().__init__(root, outside)
        if coco is None:
            raise ValueError(
                "`coco` must be the folder with VQAv2's annotations and "
                "Karpathy's dataset_coco.json (`--set coco=FOLDER` on the "
                "command line). Received: coco=None"
            )
        self._vqa = VQAv2(coco, min_count, outside)
        self._captions = COCOCaptions(coco, outside)
        self._folders.append(Below(coco))

    @property
    def labels(self):
        return self._vqa.labels

    def files(self, part):
        # Joined to a root, an absolute path stays as it is.
        folder = self._captions.root.absolute()
        coco = (*self._vqa.annotations, self._captions.annotations)
        return (
            self.questions,
            ("image_data.json",),
            *GENOME_FOLDERS,
            *(tuple(str(folder / place) for place in of) for of in coco),
        )

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
            samples = tuple(_samples_of(row["qas"], ids))
            if samples:
                yield Draft(f"vg/{name}", (find(name),), samples, part)

    @functools.cached_property
    def _images(self):
        """Dict from parts to sets of ids of their pictures."""
        path = self.path("image_data.json")
        rows = json_rows(path, {"image_id": int, "coco_id": (int, type(None))})
        place = self._karpathy()
        split = {
            row["image_id"]: place[row["coco_id"]]
            for row in rows
            if row.get("coco_id") in place
        }
        # In COCO, Karpathy's train is train2014; all other sets are val2014.
        elsewhere = {
            row["image_id"]
            for row in rows
            if row.get("coco_id") is not None
            and place.get(row["coco_id"]) != "train"
        }
        coco = {
            name: {image for image, s in split.items() if s in (name, also)}
            for name, also in (("train", "restval"), ("val", ""), ("test", ""))
        }
        rest = [r["image_id"] for r in rows if r["image_id"] not in split]
        random.Random(0).shuffle(rest)
        filled = dict(coco)
        for name in ("test", "val"):
            count = max(0, TEST_AND_VAL_SIZE - len(coco[name]))
            filled[name] = coco[name] | set(rest[:count])
            rest = rest[count:]
        filled["train"] = coco["train"] | set(rest)
        parts = {
            f"vgqa_{kind}{name}": images[name] | images.get(also, set())
            for kind, images in (("", filled), ("coco_", coco))
            for name, also in (("train", None), ("val", "test"))
        }
        return parts | {f"vgqa_train{NO_VAL}": parts["vgqa_train"] - elsewhere}

    def _karpathy(self):
        """Dict from ids of COCO to the names of Karpathy's sets."""
        path = self._captions.path(*self._captions.annotations)
        rows = json_rows(path, {"cocoid": int, "split": str}, "images")
        return {row["cocoid"]: row["split"] for row in rows}


def _samples_of(pairs, ids):
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
