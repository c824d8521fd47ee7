"""Reader of VQAv2: questions about pictures, each answered by ten people."""

import collections
import functools
import hashlib

from keras_bridgetower.data.datasets.base import DataSet
from keras_bridgetower.data.datasets.tables import check_row
from keras_bridgetower.data.datasets.tables import json_rows
from keras_bridgetower.data.datasets.vqa_splits import ALL_QUESTIONS
from keras_bridgetower.data.datasets.vqa_splits import HELD_OUT
from keras_bridgetower.data.datasets.vqa_splits import PROTOCOLS
from keras_bridgetower.data.records.format import Draft
from keras_bridgetower.data.records.format import Sample
from keras_bridgetower.metrics.vqa import agreement
from keras_bridgetower.metrics.vqa import answer_list
from keras_bridgetower.metrics.vqa import soft_scores


def soft_scores_as_typed(answers):
    """Soft scores of answers that are not normalised, as in ViLT and METER.

    An answer is lost if the list of classes spells it differently. Two
    spellings of one answer are counted separately.

    Args:
        answers: list of str, the answer of each person.

    Returns:
        dict from answers as they were typed to scores, floats from 0 to 1.
    """
    counts = collections.Counter(answers)
    return {text: agreement(n, len(answers)) for text, n in counts.items()}


# How answers are scored: by whether the name of the part has `_fix`.
SCORE_FUNCTIONS = {True: soft_scores, False: soft_scores_as_typed}


class VQAv2(DataSet):
    """VQAv2: `v2_*.json`, and `train2014/`, `val2014/`, `test2015/`.

    The classes are the normalised `multiple_choice_answer`s that occur at
    least nine times in the annotations of training and validation, in the
    order of their first occurrence: 3,129 in all. Training leaves out
    questions without a class among their answers.

    Protocols: in `official`, training includes the validation set, and
    validation too leaves out such questions. In `honest`, training does not
    include it, and validation asks all questions. In `held_out`, training
    includes all but 1,000 pictures of the validation set. Protocols that end
    in `_as_typed` score answers as ViLT and METER did.

    Args:
        root: path of the folder.
        min_count: int, how often an answer must occur to be a class.
        outside: bool, as for `DataSet`.
    """

    task = "vqa"
    protocols = PROTOCOLS
    sizes = {
        "vqav2_train": (82_774, 434_867),
        "vqav2_val": (40_503, 210_051),
        "vqav2_train_fix": (82_774, 435_174),
        "vqav2_val_fix": (40_503, 210_207),
        "vqav2_val_all": (40_504, 214_354),
        "vqav2_val_fix_all": (40_504, 214_354),
        "vqav2_test": (81_434, 447_793),
    }
    years = {"train": "train2014", "val": "val2014", "test": "test2015"}
    # The order of the annotation files in which classes are numbered.
    annotated = ("train", "val")

    def __init__(self, root, min_count=9, outside=False):
        super().__init__(root, outside)
        self.min_count = int(min_count)

    @functools.cached_property
    def labels(self):
        rows = self._annotations
        labels = answer_list(*rows.values(), min_count=self.min_count)
        if not labels:
            raise ValueError(
                "Some answer must occur `min_count` times in the annotations "
                f"of {self.root}. Received: min_count={self.min_count}"
            )
        return labels

    def files(self, part):
        name = _file_of(part)
        questions = _question_places(self.years.get(name, name))
        return (questions, *self.annotations, (_picture_folder(name),))

    @property
    def annotations(self):
        """Possible paths of the annotation files, which all parts need."""
        return tuple(_annotation_places(self.years[n]) for n in self.annotated)

    def drafts(self, part):
        name = _file_of(part)
        year = self.years.get(name, name)
        path = self.path(*_question_places(year))
        keys = {"image_id": int, "question_id": int, "question": str}
        targets = _NoTargets()
        if name in self.annotated:
            targets = self._targets(name, SCORE_FUNCTIONS["_fix" in part])
        samples = {}
        for row in json_rows(path, keys, "questions"):
            question = row["question_id"]
            if question not in targets:
                raise ValueError(
                    f"Each question of {path} must be annotated. Received: "
                    f"question_id={question}, without annotation"
                )
            sample = Sample(str(question), row["question"], *targets[question])
            samples.setdefault(row["image_id"], []).append(sample)
        folder = _picture_folder(name)
        for image in _pictures_of_part(part, samples):
            file = f"COCO_{folder}_{image:012d}"
            pictures = (self.picture_in(self.root / folder, f"{file}.jpg"),)
            kept = tuple(_samples_of_part(part, samples[image]))
            if kept:
                yield Draft(file, pictures, kept, part)

    @functools.cached_property
    def _annotations(self):
        keys = {
            "question_id": int,
            "multiple_choice_answer": str,
            "answers": list,
        }
        return {
            name: json_rows(self._annotation_path(name), keys, "annotations")
            for name in self.annotated
        }

    def _annotation_path(self, name):
        return self.path(*_annotation_places(self.years[name]))

    def _targets(self, name, count):
        """Dict from question ids to `(class ids, scores)` of the answers."""
        path = self._annotation_path(name)
        ids = {label: i for i, label in enumerate(self.labels)}
        targets = {}
        for number, row in enumerate(self._annotations[name]):
            for i, answer in enumerate(row["answers"]):
                place = f"the answers of annotation {number} in {path}"
                check_row(place, i, answer, {"answer": str})
            scores = count([answer["answer"] for answer in row["answers"]])
            known = {ids[a]: s for a, s in scores.items() if a in ids}
            targets[row["question_id"]] = tuple(known), tuple(known.values())
        return targets


class _NoTargets:
    """In place of that dict, if answers are not public: nothing for any id."""

    def __contains__(self, question):
        return True

    def __getitem__(self, question):
        return ()


def _file_of(part):
    """Whose files a part is read from: train, val, test or test-dev2015."""
    name = (
        part.removeprefix("vqav2_")
        .removesuffix(ALL_QUESTIONS)
        .removesuffix("_fix")
    )
    return {"trainable_val": "val", "rest_val": "val"}.get(name, name)


def _picture_folder(name):
    # test-dev2015 asks about pictures of test2015.
    return VQAv2.years.get(name, "test2015")


def _samples_of_part(part, samples):
    """Drop questions without a class, except in parts that ask all of them."""
    if part.endswith(ALL_QUESTIONS) or _file_of(part) not in VQAv2.annotated:
        return samples
    return [sample for sample in samples if sample.labels]


def _pictures_of_part(part, images):
    """The ids of the pictures in a part, in the order of the file."""
    if "rest_val" not in part and "trainable_val" not in part:
        return list(images)
    ranked = sorted(images, key=_hash)
    held_out = set(ranked[: min(HELD_OUT, len(ranked) // 2)])
    inside = "rest_val" in part
    return [image for image in images if (image in held_out) == inside]


def _hash(image):
    return hashlib.sha256(str(image).encode()).hexdigest()


def _question_places(year):
    name = f"v2_OpenEnded_mscoco_{year}_questions.json"
    return f"vqav2/{name}", name


def _annotation_places(year):
    name = f"v2_mscoco_{year}_annotations.json"
    return f"vqav2/{name}", name
