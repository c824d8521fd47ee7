"""The data sets of ViLT, METER and BridgeTower in their Arrow tables."""

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
    """Abstract: columns `image`, `caption`, `image_id`."""

    task = "captions"
    columns = {"caption": "list<string>", "image_id": "string or integer"}

    def samples(self, key, row):
        return (
            Sample(f"{key}#{i}", text) for i, text in enumerate(row["caption"])
        )


class ArrowCOCO(ArrowCaptions):
    """The tables `coco_caption_karpathy_*`."""

    protocols = captions.COCOCaptions.protocols
    sizes = captions.COCOCaptions.sizes


class ArrowFlickr30K(ArrowCaptions):
    """The tables `f30k_caption_karpathy_*`."""

    protocols = captions.Flickr30K.protocols
    sizes = captions.Flickr30K.sizes


class ArrowVisualGenome(ArrowCaptions):
    """The table `vg`."""

    protocols = captions.VisualGenome.protocols


class ArrowCC3M(ArrowCaptions):
    """The tables `conceptual_caption_train_*` and `conceptual_caption_val_*`.

    Their column `split` holds the name of a folder and is not read.
    """

    protocols = web.CC3M_PROTOCOLS


class ArrowSBU(ArrowCaptions):
    """The tables `sbu_*`."""

    protocols = web.SBU_PROTOCOLS


class ArrowVQAv2(ArrowTables):
    """The tables `vqav2_*`.

    BridgeTower's, whose names end in `_fix`, count normalised answers; ViLT's
    and METER's hold answers as typed, for the protocols `..._as_typed`. They
    hold no question without a class among its answers.

    The classes are those of all tables `vqav2_*` and `vgqa_*` of the folder,
    so keep both in one folder to train on them together. A class that no
    question there has is named "unknown" and keeps its place.
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
        # First, so that `check` tells what is wrong with them.
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
    """The tables `vgqa_*`, with the classes of `ArrowVQAv2`."""

    protocols = vg_qa.TABLE_PROTOCOLS
    sizes = vg_qa.VGQA.sizes


class ArrowSNLIVE(ArrowTables):
    """The tables `snli_*`, of premise and hypothesis; no ids."""

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
    """The tables `nlvr2_*`.

    They hold split, set and pair of an identifier but not the number of the
    sentence. It is derived: the distinct sentences of a set are numbered as
    they occur in a table. So ids of samples group the pairs of a sentence as
    the official ones do, for consistency, but the last number may be another:
    official files of predictions need the original files (`nlvr2`).
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
            # The identifiers up to here, of one pair.
            of_set = numbers[draft.samples[0].id.rpartition("-")[0]]
            said, samples = collections.Counter(), []
            for sample in draft.samples:
                # Two people may have written one sentence about a pair.
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
    """The pairs of an answer and its id in a table, as a set."""
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
