"""Readers of data sets in Arrow tables, one class for each data set."""

import collections
import dataclasses
import functools

from keras_bridgetower.data.datasets import captions
from keras_bridgetower.data.datasets import nlvr2
from keras_bridgetower.data.datasets import snli_ve
from keras_bridgetower.data.datasets import vg_qa
from keras_bridgetower.data.datasets import vqa
from keras_bridgetower.data.datasets import vqa_splits
from keras_bridgetower.data.datasets import web
from keras_bridgetower.data.datasets.arrow.tables import ArrowTables
from keras_bridgetower.data.records.format import Sample


class ArrowCaptions(ArrowTables):
    """Abstract: tables with the columns `image`, `caption` and `image_id`."""

    task = "captions"
    columns = {"caption": "list<string>", "image_id": "string or integer"}

    def samples(self, key, row):
        return (
            Sample(f"{key}#{i}", text) for i, text in enumerate(row["caption"])
        )


class ArrowCOCO(ArrowCaptions):
    """COCO captions: the tables `coco_caption_karpathy_*`."""

    protocols = captions.COCOCaptions.protocols
    sizes = captions.COCOCaptions.sizes


class ArrowFlickr30K(ArrowCaptions):
    """Flickr30K: the tables `f30k_caption_karpathy_*`."""

    protocols = captions.Flickr30K.protocols
    sizes = captions.Flickr30K.sizes


class ArrowVisualGenome(ArrowCaptions):
    """Visual Genome: the table `vg`."""

    protocols = captions.VisualGenome.protocols


class ArrowCC3M(ArrowCaptions):
    """CC3M: the tables `conceptual_caption_train_*` and `..._val_*`.

    Their column `split` holds the name of a folder and is not read.
    """

    protocols = web.CC3M_PROTOCOLS


class ArrowSBU(ArrowCaptions):
    """SBU captions: the tables `sbu_*`."""

    protocols = web.SBU_PROTOCOLS


class ArrowVQAv2(ArrowTables):
    """VQAv2: the tables `vqav2_*`.

    BridgeTower's tables, whose names end in `_fix`, have scores of normalised
    answers. Those of ViLT and METER have scores of answers as typed, for the
    protocols that end in `_as_typed`. The tables do not have questions
    without a class among their answers.

    The classes come from all tables `vqav2_*` and `vgqa_*` in the folder. To
    train on both data sets together, put their tables into one folder. An id
    that no answer has is named "unknown <id>".
    """

    task = "vqa"
    columns = {
        "questions": "list<string>",
        "answers": "list<list<string>>",
        "answer_labels": "list<list<integer>>",
        "answer_scores": "list<list<float or integer>>",
        "image_id": "string or integer",
        "question_id": "list<string or integer>",
    }
    protocols = vqa_splits.TABLE_PROTOCOLS
    sizes = vqa.VQAv2.sizes

    def drafts(self, part):
        # Read the labels first, so that `check` reports errors in them.
        self.labels  # noqa: B018
        return super().drafts(part)

    @functools.cached_property
    def labels(self):
        names, ids = {}, {}
        for path in (*_tables(self, "vqav2"), *_tables(self, "vgqa")):
            rows = self.rows(path, ("answers", "answer_labels"))
            for answer, i in sorted(_named_answers(path, rows)):
                for known, key in ((names, i), (ids, answer)):
                    first = known.setdefault(key, (answer, i, path))
                    if first[:2] != (answer, i):
                        raise ValueError(
                            "All tables of a folder must give an answer one "
                            f"id. Received: {first[0]!r} with id {first[1]} "
                            f"in {first[2]}, {answer!r} with id {i} in {path}"
                        )
        if not names:
            raise ValueError(
                f"Some table vqav2_*.arrow or vgqa_*.arrow in {self.root} must "
                "hold answers. Received: none"
            )
        count = max(names) + 1
        return [names.get(i, (f"unknown {i}",))[0] for i in range(count)]

    def samples(self, key, row):
        asked = len(row["questions"])
        counts = {c: len(row[c]) for c in row if isinstance(row[c], list)}
        answers = {c: counts[c] for c in counts if c.startswith("answer")}
        if counts["question_id"] != asked or {*answers.values()} - {0, asked}:
            raise ValueError(
                f"Each question of {key} in {self.root} must have an id, and "
                "all or none of them answers, ids of answers and scores. "
                f"Received: counts {counts}"
            )
        for i, question in enumerate(row["questions"]):
            target = ()
            if row["answer_labels"] and row["answer_labels"][i]:
                target = tuple(
                    tuple(row[c][i]) for c in ("answer_labels", "answer_scores")
                )
            yield Sample(str(row["question_id"][i]), question, *target)


class ArrowVGQA(ArrowVQAv2):
    """Visual Genome's questions: the tables `vgqa_*`.

    The classes are those of `ArrowVQAv2`.
    """

    protocols = vg_qa.TABLE_PROTOCOLS
    sizes = vg_qa.VGQA.sizes


class ArrowSNLIVE(ArrowTables):
    """SNLI-VE: the tables `snli_*`, which have no ids of pictures."""

    task = "entailment"
    labels = list(snli_ve.LABELS)
    columns = {"sentences": "list<list<string>>", "labels": "list<integer>"}
    protocols = snli_ve.SNLIVE.protocols
    sizes = snli_ve.SNLIVE.sizes

    def key_of(self, number, row):
        return number

    def samples(self, key, row):
        pairs = zip(row["sentences"], row["labels"], strict=True)
        for i, ((_, hypothesis), label) in enumerate(pairs):
            yield Sample(f"{key}#{i}", hypothesis.strip(), (label,))


class ArrowNLVR2(ArrowTables):
    """NLVR2: the tables `nlvr2_*`.

    An official identifier has four parts: split, set, pair and sentence. The
    tables lack the number of the sentence. It is derived: the distinct
    sentences of a set are numbered in the order in which they occur. So the
    metric of consistency finds all pairs with one sentence, but the numbers
    may differ from the official ones. To write official files of predictions,
    use the original files (`nlvr2`).
    """

    task = "nlvr2"
    labels = list(nlvr2.LABELS)
    columns = {
        "questions": "list<string>",
        "answers": "list<string>",
        "identifier": "string",
    }
    pictures = ("image_0", "image_1")
    protocols = nlvr2.NLVR2.protocols
    sizes = nlvr2.NLVR2.sizes

    def drafts(self, part):
        numbers = collections.defaultdict(dict)
        for draft in super().drafts(part):
            # An identifier without the pair names its set.
            of_set = numbers[draft.samples[0].id.rpartition("-")[0]]
            said, samples = collections.Counter(), []
            for sample in draft.samples:
                # Two people may have written the same sentence about a pair.
                sentence = sample.text, said[sample.text]
                said[sample.text] += 1
                number = of_set.setdefault(sentence, len(of_set))
                name = f"{sample.id}-{number}"
                samples.append(dataclasses.replace(sample, id=name))
            yield dataclasses.replace(draft, samples=tuple(samples))

    def key_of(self, number, row):
        return row["identifier"]

    def samples(self, key, row):
        pairs = zip(row["questions"], row["answers"], strict=True)
        for sentence, answer in pairs:
            label = nlvr2.label_id(self.root, key, answer)
            yield Sample(row["identifier"], sentence, (label,))


def _tables(data, prefix):
    return sorted(data.root.glob(f"{prefix}_*.arrow"))


def _named_answers(path, rows):
    """The set of all pairs `(answer, id)` in a table."""
    found = set()
    for number, (answers, ids) in enumerate(row.values() for row in rows):
        if [*map(len, answers)] != [*map(len, ids)]:
            raise ValueError(
                f"Each answer of {path} must have an id in answer_labels. "
                f"Received: answers={answers!r:.100}, "
                f"answer_labels={ids!r:.100} in row {number}"
            )
        for of_question in map(zip, answers, ids):
            found.update(of_question)
    return found
