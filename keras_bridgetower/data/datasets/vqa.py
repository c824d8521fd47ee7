"""Readers of questions and answers: VQAv2, and Visual Genome's questions."""

import collections
import functools
import hashlib
import random

from keras_bridgetower.data.datasets.base import DataSet
from keras_bridgetower.data.datasets.base import Split
from keras_bridgetower.data.datasets.captions import GENOME_FOLDERS
from keras_bridgetower.data.datasets.captions import COCOCaptions
from keras_bridgetower.data.datasets.captions import genome_pictures
from keras_bridgetower.data.datasets.tables import check_rows
from keras_bridgetower.data.datasets.tables import json_rows
from keras_bridgetower.data.records.format import Draft
from keras_bridgetower.data.records.format import Sample
from keras_bridgetower.files import Below
from keras_bridgetower.metrics.vqa import agreement
from keras_bridgetower.metrics.vqa import answer_list
from keras_bridgetower.metrics.vqa import normalize_answer
from keras_bridgetower.metrics.vqa import soft_scores

# Number of validation pictures that the protocol `held_out` does not train on,
# as in ViLT.
_HELD_OUT = 1000
# Suffix of the parts that also have questions without a class.
_ALL_QUESTIONS = "_all"
# Suffix of the training part without pictures of val2014.
_NO_VAL = "_no_val2014"
# Number of Visual Genome's pictures in the test and in the validation set.
TEST_AND_VAL_SIZE = 5000


def _vqa_protocols(suffix):
    """Return the protocols without test sets.

    Args:
        suffix: str, suffix of the honest validation parts: `"_all"` if they
            have all questions, `""` if only those with a class.
    """
    questions = {
        _ALL_QUESTIONS: "all questions; those without a class among their "
        "answers score 0",
        "": "without the questions that have no class among their answers",
    }[suffix]
    protocols = {}
    for ending, fix, counting in (
        ("", "_fix", "answers normalised"),
        ("_as_typed", "", "answers counted as typed"),
    ):
        train, val = f"vqav2_train{fix}", f"vqav2_val{fix}"
        protocols[f"honest{ending}"] = {
            "train": Split((train,), f"train2014, {counting}."),
            "validation": Split(
                (f"{val}{suffix}",), f"val2014, {counting}, {questions}."
            ),
        }
        protocols[f"held_out{ending}"] = {
            "train": Split(
                (train, f"vqav2_trainable_val{fix}"),
                f"train2014 and all but {_HELD_OUT:,} pictures of val2014, "
                f"{counting}.",
            ),
            "validation": Split(
                (f"vqav2_rest_val{fix}{suffix}",),
                f"{_HELD_OUT:,} pictures of val2014, {counting}, {questions}.",
            ),
        }
        protocols[f"official{ending}"] = {
            "train": Split((train, val), f"train2014 and val2014, {counting}."),
            "validation": Split(
                (val,),
                f"val2014, {counting}.",
                "the official training set holds all of it, so its score is "
                "none of unseen pictures.",
            ),
        }
    return protocols


_TEST = {
    "test": Split(
        ("vqav2_test",), "test2015, test-dev and test-std, without answers."
    )
}
_TEST_DEV = {
    "test_dev": Split(("vqav2_test-dev2015",), "test-dev2015, without answers.")
}
_VQA_PROTOCOLS = {
    name: splits | _TEST | _TEST_DEV
    for name, splits in _vqa_protocols(_ALL_QUESTIONS).items()
}
# The Arrow tables have no test-dev alone, and no `held_out` with normalized
# answers.
VQA_TABLE_PROTOCOLS = {
    name: splits | _TEST
    for name, splits in _vqa_protocols("").items()
    if name != "held_out"
}


def _vgqa_splits(train, val, words, leak=""):
    return {
        "train": Split((train,), f"Questions about {words}.", leak),
        "validation": Split(
            (val,), "Questions about pictures of val and test."
        ),
    }


_VGQA_PROTOCOLS = {
    "honest": _vgqa_splits(
        f"vgqa_train{_NO_VAL}",
        "vgqa_val",
        "pictures of train, without those of val2014, on which VQAv2 is "
        "validated",
    ),
    "official": _vgqa_splits(
        "vgqa_train", "vgqa_val", "pictures of train, many of val2014"
    ),
    "coco": _vgqa_splits(
        "vgqa_coco_train",
        "vgqa_coco_val",
        "pictures of train that are in COCO, many of val2014",
    ),
}
# The Arrow tables lack the information which pictures are in COCO.
VGQA_TABLE_PROTOCOLS = _VGQA_PROTOCOLS | {
    "honest": _vgqa_splits(
        "vgqa_train",
        "vgqa_val",
        "pictures of train",
        "many of the pictures are of val2014, the honest validation of VQAv2, "
        "and the table does not say which.",
    )
}


class VQAv2(DataSet):
    """VQAv2: `v2_*.json`, and `train2014/`, `val2014/`, `test2015/`.

    The classes are the normalized `multiple_choice_answer`s that occur at
    least nine times in the annotations of training and validation, in the
    order of their first occurrence: 3,129 in all. Training leaves out
    questions without a class among their answers.

    Protocols: `official` trains on the validation set too, and leaves out
    such questions from validation. `honest` does not train on it, and
    validates on all questions. `held_out` trains on all but 1,000 pictures of
    the validation set. Protocols that end in `_as_typed` score answers as
    ViLT and METER did.

    Args:
        root: path of the folder.
        min_count: int, minimum number of occurrences of a class.
        outside: bool, as in `DataSet`.
    """

    task = "vqa"
    protocols = _VQA_PROTOCOLS
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
        name = _file_name(part)
        questions = self._question_places(name)
        return (questions, *self.annotations, (_picture_folder(name),))

    @property
    def annotations(self):
        """Return the possible paths of the annotation files."""
        return tuple(map(self._annotation_places, self.annotated))

    def drafts(self, part):
        name = _file_name(part)
        path = self.path(*self._question_places(name))
        keys = {"image_id": int, "question_id": int, "question": str}
        targets = None
        if name in self.annotated:
            score = soft_scores if "_fix" in part else soft_scores_as_typed
            targets = self._targets(name, score)
        samples = {}
        for row in json_rows(path, keys, "questions"):
            question = row["question_id"]
            if targets is not None and question not in targets:
                raise ValueError(
                    f"Each question of {path} must be annotated. Received: "
                    f"question_id={question}"
                )
            target = targets[question] if targets else ()
            sample = Sample(str(question), row["question"], *target)
            samples.setdefault(row["image_id"], []).append(sample)
        # Training parts drop questions without a class.
        all_questions = targets is None or part.endswith(_ALL_QUESTIONS)
        folder = _picture_folder(name)
        for image in _pictures_in(part, samples):
            file = f"COCO_{folder}_{image:012d}"
            pictures = (self.picture_in(self.root / folder, f"{file}.jpg"),)
            kept = tuple(s for s in samples[image] if all_questions or s.labels)
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
            name: json_rows(
                self.path(*self._annotation_places(name)), keys, "annotations"
            )
            for name in self.annotated
        }

    def _question_places(self, name):
        year = self.years.get(name, name)
        file = f"v2_OpenEnded_mscoco_{year}_questions.json"
        return f"vqav2/{file}", file

    def _annotation_places(self, name):
        file = f"v2_mscoco_{self.years[name]}_annotations.json"
        return f"vqav2/{file}", file

    def _targets(self, name, score):
        """Map question ids to `(class ids, scores)` of their answers."""
        path = self.path(*self._annotation_places(name))
        ids = {label: i for i, label in enumerate(self.labels)}
        targets = {}
        for number, row in enumerate(self._annotations[name]):
            place = f"the answers of annotation {number} in {path}"
            check_rows(place, row["answers"], {"answer": str})
            scores = score([answer["answer"] for answer in row["answers"]])
            known = {ids[a]: s for a, s in scores.items() if a in ids}
            targets[row["question_id"]] = tuple(known), tuple(known.values())
        return targets


def soft_scores_as_typed(answers):
    """Return soft scores of unnormalized answers, as in ViLT and METER.

    An answer is lost if the list of classes spells it differently. Two
    spellings of one answer are counted separately.

    Args:
        answers: list of str, the answer of each person.

    Returns:
        dict from answers to scores, floats from 0 to 1.
    """
    counts = collections.Counter(answers)
    return {text: agreement(n, len(answers)) for text, n in counts.items()}


def _file_name(part):
    """Return the name in a part's files: train, val, test or test-dev2015."""
    name = part.removeprefix("vqav2_").removesuffix(_ALL_QUESTIONS)
    name = name.removesuffix("_fix")
    return {"trainable_val": "val", "rest_val": "val"}.get(name, name)


def _picture_folder(name):
    # test-dev2015 has questions about pictures of test2015.
    return VQAv2.years.get(name, "test2015")


def _pictures_in(part, images):
    """Return the ids of the pictures in a part, in the order of the file."""
    if "rest_val" not in part and "trainable_val" not in part:
        return list(images)
    ranked = sorted(
        images, key=lambda i: hashlib.sha256(str(i).encode()).hexdigest()
    )
    held_out = set(ranked[: min(_HELD_OUT, len(ranked) // 2)])
    inside = "rest_val" in part
    return [image for image in images if (image in held_out) == inside]


class VGQA(DataSet):
    """Visual Genome's questions with the classes of VQAv2.

    A question is kept if its normalized answer is a class and the picture has
    no other answer to the same question that is a class. Repeated questions
    are kept once.

    Pictures of COCO are in Karpathy's sets. The others are shuffled; they fill
    the test and the validation set to 5,000 pictures each, and the rest is for
    training. The authors' shuffle cannot be repeated, since only its seed is
    known.

    Karpathy's training set has most of val2014, the honest validation set of
    VQAv2. Honest training leaves these pictures out. The protocol `coco`
    takes only pictures of COCO.

    Files: `annotations/question_answers.json`, `image_data.json`, `VG_100K/`,
    `VG_100K_2/`.

    Args:
        root: path of the folder of Visual Genome.
        coco: path of the folder with VQAv2's annotations and Karpathy's
            `dataset_coco.json`.
        min_count: int, as in `VQAv2`.
        outside: bool, as in `DataSet`.
    """

    task = "vqa"
    protocols = _VGQA_PROTOCOLS
    sizes = {
        "vgqa_coco_train": (None, 429_061),
        "vgqa_coco_val": (None, 38_855),
        "vgqa_train": (None, 846_015),
        "vgqa_val": (None, 85_851),
    }
    questions = ("annotations/question_answers.json", "question_answers.json")

    def __init__(self, root, coco, min_count=9, outside=False):
        super().__init__(root, outside)
        self._vqa = VQAv2(coco, min_count, outside)
        self._captions = COCOCaptions(coco, outside)
        self._folders.append(Below(coco))

    @property
    def labels(self):
        return self._vqa.labels

    def files(self, part):
        # Joined to a root, an absolute path does not change.
        folder = self._captions.root.absolute()
        coco = (*self._vqa.annotations, self._captions.annotations)
        return (
            self.questions,
            ("image_data.json",),
            *GENOME_FOLDERS,
            *(
                tuple(str(folder / place) for place in places)
                for places in coco
            ),
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
            place = f"the qas of picture {row['id']} in {path}"
            check_rows(place, row["qas"], pairs)
            name = f"{row['id']}.jpg"
            samples = tuple(_genome_samples(row["qas"], ids))
            if samples:
                yield Draft(f"vg/{name}", (find(name),), samples, part)

    @functools.cached_property
    def _images(self):
        """Map parts to sets of the ids of their pictures."""
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
        return parts | {f"vgqa_train{_NO_VAL}": parts["vgqa_train"] - elsewhere}

    def _karpathy(self):
        """Map ids of COCO to the names of Karpathy's sets."""
        path = self._captions.path(*self._captions.annotations)
        rows = json_rows(path, {"cocoid": int, "split": str}, "images")
        return {row["cocoid"]: row["split"] for row in rows}


def _genome_samples(pairs, ids):
    """Yield the questions about a picture with exactly one class as answer."""
    answers, first = {}, {}
    for pair in pairs:
        answer = normalize_answer(pair["answer"])
        if answer in ids:
            answers.setdefault(pair["question"], set()).add(answer)
            first.setdefault(pair["question"], pair)
    for question, pair in first.items():
        if len(answers[question]) == 1:
            (answer,) = answers[question]
            yield Sample(f"vg{pair['qa_id']}", question, (ids[answer],), (1.0,))
