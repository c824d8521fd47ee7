"""VQAv2: questions, ten answers each, and the 3,129 classes."""

import collections
import functools
import hashlib

from keras_bridgetower.data.readers.base import DataSet
from keras_bridgetower.data.readers.base import Split
from keras_bridgetower.data.readers.base import picture_in
from keras_bridgetower.data.readers.files import check_row
from keras_bridgetower.data.readers.files import json_rows
from keras_bridgetower.data.record_format import Draft
from keras_bridgetower.data.record_format import Sample
from keras_bridgetower.metrics.vqa_answers import agreement
from keras_bridgetower.metrics.vqa_answers import answer_list
from keras_bridgetower.metrics.vqa_answers import soft_scores

# Pictures of the validation set that the protocol `held_out` keeps back, as
# many as ViLT did.
HELD_OUT = 1000


def soft_scores_as_typed(answers):
    """Scores without normalising, the counting of ViLT and METER.

    Answers that the list spells differently are lost, and equal answers in
    two spellings are counted apart.

    Args:
        answers: list of str, one for each person.

    Returns:
        dict from answer as typed to float score in 0..1.
    """
    counts = collections.Counter(answers)
    return {text: agreement(n, len(answers)) for text, n in counts.items()}


# By whether the name of a table ends in `_fix`.
COUNTING = {True: soft_scores, False: soft_scores_as_typed}


def _protocols(fix):
    train, val = f"vqav2_train{fix}", f"vqav2_val{fix}"
    counting = "answers normalised" if fix else "answers counted as typed"
    tests = {
        "test": Split(
            ("vqav2_test",), "test2015, test-dev and test-std, without answers."
        ),
        "test_dev": Split(
            ("vqav2_test-dev2015",), "test-dev2015, without answers."
        ),
    }
    return {
        "honest": {
            "train": Split((train,), f"train2014, {counting}."),
            "validation": Split((val,), f"val2014, {counting}."),
            **tests,
        },
        "held_out": {
            "train": Split(
                (train, f"vqav2_trainable_val{fix}"),
                f"train2014 and all but {HELD_OUT:,} pictures of val2014, "
                f"{counting}.",
            ),
            "validation": Split(
                (f"vqav2_rest_val{fix}",),
                f"{HELD_OUT:,} pictures of val2014, {counting}.",
            ),
            **tests,
        },
        "official": {
            "train": Split((train, val), f"train2014 and val2014, {counting}."),
            "validation": Split(
                (val,),
                f"val2014, {counting}.",
                "the official training set holds all of it, so its score is "
                "none of unseen pictures.",
            ),
            **tests,
        },
    }


PROTOCOLS = _protocols("_fix") | {
    "official_as_typed": _protocols("")["official"]
}


class VQAv2(DataSet):
    """VQAv2: `v2_*.json`, and `train2014/`, `val2014/`, `test2015/`.

    The classes are the normalised `multiple_choice_answer`s that occur at
    least nine times in the annotations of training and validation, in the
    order of their first occurrence. Questions none of whose answers is a
    class are left out.

    Official: training includes validation. Honest: it does not. `held_out`
    trains on all but 1,000 pictures of validation. `official_as_typed` counts
    answers as ViLT and METER did.

    Args:
        root: path of the folder.
        min_count: int, occurrences that a class needs.
    """

    task = "vqa"
    protocols = PROTOCOLS
    sizes = {
        "vqav2_train": (82_774, 434_867),
        "vqav2_val": (40_503, 210_051),
        "vqav2_train_fix": (82_774, 435_174),
        "vqav2_val_fix": (40_503, 210_207),
        "vqav2_test": (81_434, 447_793),
    }
    years = {"train": "train2014", "val": "val2014", "test": "test2015"}
    # In this order they make the classes.
    annotated = ("train", "val")

    def __init__(self, root, min_count=9):
        super().__init__(root)
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
        questions = (_question_places(self.years.get(name, name)),)
        folder = ((_picture_folder(name),),)
        both = (_annotation_places(self.years[n]) for n in self.annotated)
        return (*questions, *both, *folder)

    def drafts(self, part):
        name = _file_of(part)
        year = self.years.get(name, name)
        path = self.path(*_question_places(year))
        keys = {"image_id": int, "question_id": int, "question": str}
        targets = _NoTargets()
        if name in self.annotated:
            targets = self._targets(name, COUNTING[part.endswith("_fix")])
        samples = {}
        for row in json_rows(path, keys, "questions"):
            question = row["question_id"]
            if question not in targets:
                raise ValueError(
                    f"Each question of {path} must be annotated. Received: "
                    f"question_id={question}, without annotation"
                )
            target = targets[question]
            if target is not None:
                sample = Sample(str(question), row["question"], *target)
                samples.setdefault(row["image_id"], []).append(sample)
        folder = _picture_folder(name)
        for image in _wanted(part, samples):
            file = f"COCO_{folder}_{image:012d}.jpg"
            yield Draft(
                file.removesuffix(".jpg"),
                (picture_in(self.root / folder, file),),
                tuple(samples[image]),
                part,
            )

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
        """From question ids to `(ids, scores)`, None where no id is known."""
        path = self._annotation_path(name)
        ids = {label: i for i, label in enumerate(self.labels)}
        targets = {}
        for number, row in enumerate(self._annotations[name]):
            for i, answer in enumerate(row["answers"]):
                place = f"the answers of annotation {number} in {path}"
                check_row(place, i, answer, {"answer": str})
            scores = count([answer["answer"] for answer in row["answers"]])
            known = {ids[a]: s for a, s in scores.items() if a in ids}
            targets[row["question_id"]] = (
                (tuple(known), tuple(known.values())) if known else None
            )
        return targets


class _NoTargets:
    """The targets of questions whose answers are not public."""

    def __contains__(self, question):
        return True

    def __getitem__(self, question):
        return ()


def _file_of(part):
    """train, val, test or test-dev2015, whose files a part is read from."""
    name = part.removeprefix("vqav2_").removesuffix("_fix")
    return {"trainable_val": "val", "rest_val": "val"}.get(name, name)


def _picture_folder(name):
    # test-dev2015 asks about pictures of test2015.
    return VQAv2.years.get(name, "test2015")


def _wanted(part, images):
    """The pictures of a part, in the order of the file."""
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
