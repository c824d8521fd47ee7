"""Readers of questions and answers: VQAv2, and Visual Genome's questions."""

import collections
import functools
import hashlib
import random

from keras_bridgetower.data.datasets.base import DataSet
from keras_bridgetower.data.datasets.captions import GENOME_FOLDERS
from keras_bridgetower.data.datasets.captions import COCOCaptions
from keras_bridgetower.data.datasets.captions import genome_pictures
from keras_bridgetower.data.datasets.tables import load_json
from keras_bridgetower.data.records.format import Draft
from keras_bridgetower.data.records.format import Sample
from keras_bridgetower.files import Below
from keras_bridgetower.metrics import vqa

# Number of validation pictures that the protocol `held_out` does not train on,
# as in ViLT.
_HELD_OUT = 1000
# Suffix of the parts that also have questions without a class.
_ALL_QUESTIONS = "_all"
# The annotation files, in the order in which classes are numbered.
_SCORED = ("train", "val")
# Suffix of the training part without pictures of val2014.
_NO_VAL = "_no_val2014"
# Number of Visual Genome's pictures in the test and in the validation set.
TEST_AND_VAL_SIZE = 5000


class VQAv2(DataSet, published="vqav2"):
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
    years = {"train": "train2014", "val": "val2014", "test": "test2015"}

    def __init__(self, root, min_count=9, outside=False):
        super().__init__(root, outside)
        self.min_count = int(min_count)

    @functools.cached_property
    def labels(self):
        rows = self._annotations.values()
        return vqa.answer_list(*rows, min_count=self.min_count)

    def files(self, part):
        name = _file_name(part)
        year = self.years.get(name, name)
        file = f"v2_OpenEnded_mscoco_{year}_questions.json"
        # test-dev2015 has questions about pictures of test2015.
        folder = self.years.get(name, "test2015")
        return ((f"vqav2/{file}", file), *self.annotations, (folder,))

    @property
    def annotations(self):
        """Return the possible paths of the annotation files."""
        names = (f"v2_mscoco_{self.years[n]}_annotations.json" for n in _SCORED)
        return tuple((f"vqav2/{name}", name) for name in names)

    def drafts(self, part):
        questions, *_, (folder,) = self.files(part)
        path, folder = self.path(*questions), self.root / folder
        name = _file_name(part)
        targets = None
        if name in _SCORED:
            score = vqa.soft_scores if "_fix" in part else soft_scores_as_typed
            targets = self._targets(name, score)
        samples = {}
        for row in load_json(path)["questions"]:
            question = row["question_id"]
            target = () if targets is None else targets[question]
            sample = Sample(str(question), row["question"], *target)
            samples.setdefault(row["image_id"], []).append(sample)
        # Training parts drop questions without a class.
        all_questions = targets is None or part.endswith(_ALL_QUESTIONS)
        for image in _pictures_in(part, samples):
            file = f"COCO_{folder.name}_{image:012d}"
            kept = tuple(s for s in samples[image] if all_questions or s.labels)
            if kept:
                picture = self.picture_in(folder, f"{file}.jpg")
                yield Draft(file, (picture,), kept, part)

    @functools.cached_property
    def _annotations(self):
        paths = (self.path(*names) for names in self.annotations)
        rows = (load_json(path)["annotations"] for path in paths)
        return dict(zip(_SCORED, rows, strict=True))

    def _targets(self, name, score):
        """Map question ids to `(class ids, scores)` of their answers."""
        ids, targets = self.ids, {}
        for row in self._annotations[name]:
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
    return {text: vqa.agreement(n, len(answers)) for text, n in counts.items()}


def _file_name(part):
    """Return the name in a part's files: train, val, test or test-dev2015."""
    name = part.removeprefix("vqav2_").removesuffix(_ALL_QUESTIONS)
    name = name.removesuffix("_fix")
    return {"trainable_val": "val", "rest_val": "val"}.get(name, name)


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


class VGQA(DataSet, published="vgqa"):
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
            *(tuple(str(folder / name) for name in names) for names in coco),
        )

    def drafts(self, part):
        rows = load_json(self.path(*self.questions))
        wanted = self._images[part]
        find = genome_pictures(self)
        for row in rows:
            if row["id"] in wanted:
                name = f"{row['id']}.jpg"
                samples = tuple(_genome_samples(row["qas"], self.ids))
                if samples:
                    yield Draft(f"vg/{name}", (find(name),), samples, part)

    @functools.cached_property
    def _images(self):
        """Map parts to sets of the ids of their pictures."""
        path = self._captions.path(*self._captions.annotations)
        karpathy = {
            row["cocoid"]: row["split"] for row in load_json(path)["images"]
        }
        sets, rest, val2014 = collections.defaultdict(set), [], set()
        for row in load_json(self.path("image_data.json")):
            image, coco = row["image_id"], row.get("coco_id")
            name = karpathy.get(coco)
            # Karpathy's train is train2014; his other sets are val2014.
            if coco is not None and name != "train":
                val2014.add(image)
            if name is None:
                rest.append(image)
            else:
                sets["train" if name == "restval" else name].add(image)
        random.Random(0).shuffle(rest)
        held_out = set()
        for name in ("test", "val"):
            count = max(0, TEST_AND_VAL_SIZE - len(sets[name]))
            held_out |= sets[name] | set(rest[:count])
            rest = rest[count:]
        train = sets["train"] | set(rest)
        return {
            "vgqa_coco_train": sets["train"],
            "vgqa_coco_val": sets["val"] | sets["test"],
            "vgqa_train": train,
            "vgqa_val": held_out,
            f"vgqa_train{_NO_VAL}": train - val2014,
        }


def _genome_samples(pairs, ids):
    """Yield the questions about a picture with exactly one class as answer."""
    answers, first = {}, {}
    for pair in pairs:
        answer = vqa.normalize_answer(pair["answer"])
        if answer in ids:
            answers.setdefault(pair["question"], set()).add(answer)
            first.setdefault(pair["question"], pair)
    for question, pair in first.items():
        if len(answers[question]) == 1:
            (answer,) = answers[question]
            yield Sample(f"vg{pair['qa_id']}", question, (ids[answer],), (1.0,))
