"""Readers of data sets in Arrow tables, as BridgeTower's authors keep them."""

import collections
import dataclasses
import functools
import itertools
import re

from keras_bridgetower.checks import load_extra
from keras_bridgetower.data.datasets.base import DataSet
from keras_bridgetower.data.datasets.captions import ENTAILMENT_LABELS
from keras_bridgetower.data.datasets.captions import NLVR2_LABELS
from keras_bridgetower.data.datasets.tables import Picture
from keras_bridgetower.data.records.format import Draft
from keras_bridgetower.data.records.format import Sample
from keras_bridgetower.files import open_regular

_ROWS = 1000  # at a time


@functools.lru_cache(maxsize=64)
def open_table(path):
    """Open a `pyarrow.Table` on disk, mapped into memory and read on access.

    Args:
        path: str, path of a file in Arrow's IPC format.

    Raises:
        ImportError: pyarrow is not installed.
        ValueError: the file is cut or of another format.
    """
    pyarrow = load_extra("pyarrow", "data")
    open_regular(path).close()
    try:
        table = pyarrow.ipc.open_file(pyarrow.memory_map(path)).read_all()
        # Unchecked, a wrong offset in a damaged file would crash the process.
        table.validate(full=True)
    # Damaged files cause errors of other types too.
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise ValueError(
            f"{path} must be whole, and in Arrow's IPC file format, not in "
            f"its stream format ({error!s:.300})"
        ) from error
    return table


def _arrow_type(name):
    """Return a type of Arrow, such as `"list<string>"`."""
    pyarrow = load_extra("pyarrow", "data")
    if name.startswith("list<"):
        return pyarrow.list_(_arrow_type(name[5:-1]))
    return pyarrow.type_for_alias(name)


@dataclasses.dataclass(frozen=True, slots=True)
class ArrowPicture(Picture):
    """A picture in a cell of a table.

    Args:
        path: str, path of the table.
        column: str, name of the column.
        row: int, number of the row.
    """

    path: str
    column: str
    row: int

    def read(self):
        return open_table(self.path)[self.column][self.row].as_py() or b""


class ArrowTables(DataSet):
    """Abstract: tables with one row for each picture or pair of pictures.

    A class defines `samples(key, row)`, an iterable of the samples of a row.

    A part is the file `<part>.arrow`, or the files `<part>_<number>.arrow`.
    Each file is read separately, since types may differ: test tables have no
    answers, and their empty lists have another type.

    Attributes:
        columns: dict from the columns to read to their types, to which Arrow
            converts what the table has.
        pictures: tuple of str, the columns with pictures.
    """

    columns = {}
    pictures = ("image",)

    def files(self, part):
        return tuple((path.name,) for path in self._tables(part)) or (
            (f"{part}.arrow", f"{part}_0.arrow"),
        )

    def drafts(self, part):
        for path in self.paths(part):
            for number, row in enumerate(self.rows(path, self.columns)):
                pictures = tuple(
                    ArrowPicture(str(path), column, number)
                    for column in self.pictures
                )
                key = f"{path.stem}/{self.key(number, row)}"
                samples = tuple(self.samples(key, row))
                if samples:
                    yield Draft(key, pictures, samples, part)

    def rows(self, path, columns):
        """Yield the rows of a table, with some columns, as dicts."""
        self.check_inside(path.absolute())
        table = open_table(str(path))
        # Raises an error if there are no pictures.
        table.select(self.pictures)
        kinds = {name: _arrow_type(self.columns[name]) for name in columns}
        schema = load_extra("pyarrow", "data").schema(kinds)
        batches = table.select(schema.names).to_batches(max_chunksize=_ROWS)
        for batch in batches:
            yield from batch.cast(schema).to_pylist()

    def key(self, number, row):
        """Return the key of a row, which is unique in its table."""
        return row["image_id"]

    def _tables(self, part):
        name = re.compile(rf"{re.escape(part)}(?:_(\d+))?\.arrow")
        found = [
            (int(match[1] or 0), path)
            for path in self.root.iterdir()
            if (match := name.fullmatch(path.name))
        ]
        return [path for _, path in sorted(found)]


class ArrowCaptions(ArrowTables):
    """Abstract: tables with the columns `image`, `caption` and `image_id`."""

    task = "captions"
    columns = {"caption": "list<string>", "image_id": "string"}

    def samples(self, key, row):
        for i, text in enumerate(row["caption"]):
            yield Sample(f"{key}#{i}", text)


class ArrowCOCO(ArrowCaptions, published="coco"):
    """COCO captions: the tables `coco_caption_karpathy_*`."""


class ArrowFlickr30K(ArrowCaptions, published="flickr30k"):
    """Flickr30K: the tables `f30k_caption_karpathy_*`."""


class ArrowVisualGenome(ArrowCaptions, published="visual_genome"):
    """Visual Genome: the table `vg`."""


class ArrowCC3M(ArrowCaptions, published="cc3m"):
    """CC3M: the tables `conceptual_caption_train_*` and `..._val_*`.

    Their column `split` has the name of a folder and is not read.
    """


class ArrowSBU(ArrowCaptions, published="sbu"):
    """SBU captions: the tables `sbu_*`."""


class ArrowVQAv2(ArrowTables, published="arrow_vqav2"):
    """VQAv2: the tables `vqav2_*`.

    BridgeTower's tables, whose names end in `_fix`, have scores of normalized
    answers. The tables of ViLT and METER have scores of answers as typed, for
    the protocols that end in `_as_typed`. The tables lack questions without a
    class among their answers.

    The classes come from all tables `vqav2_*` and `vgqa_*` in the folder. To
    train on both data sets together, put their tables into one folder. An id
    without an answer is named "unknown <id>".
    """

    task = "vqa"
    columns = {
        "questions": "list<string>",
        "answers": "list<list<string>>",
        "answer_labels": "list<list<int64>>",
        "answer_scores": "list<list<double>>",
        "image_id": "string",
        "question_id": "list<string>",
    }

    @functools.cached_property
    def labels(self):
        names, ids = {}, {}
        tables = (self.root.glob(f"{of}_*.arrow") for of in ("vqav2", "vgqa"))
        for path in itertools.chain(*map(sorted, tables)):
            for answer, i in sorted(self._named_answers(path)):
                for known, key in ((names, i), (ids, answer)):
                    first = known.setdefault(key, (answer, i, path))
                    if first[:2] != (answer, i):
                        raise ValueError(
                            "All tables must give an answer one id. Received: "
                            f"{first}, {(answer, i)} in {path}"
                        )
        # Without any answer, the list is empty.
        count = max(names, default=-1) + 1
        return [names.get(i, (f"unknown {i}",))[0] for i in range(count)]

    def _named_answers(self, path):
        """Return the set of all pairs `(answer, id)` in a table."""
        return {
            pair
            for row in self.rows(path, ("answers", "answer_labels"))
            for of_question in zip(*row.values(), strict=True)
            for pair in zip(*of_question, strict=True)
        }

    def samples(self, key, row):
        targets = zip(row["answer_labels"], row["answer_scores"], strict=True)
        pairs = list(zip(row["question_id"], row["questions"], strict=True))
        targets = list(targets) or [((), ())] * len(pairs)
        for pair, (labels, scores) in zip(pairs, targets, strict=True):
            yield Sample(*pair, (*map(int, labels),), (*map(float, scores),))


class ArrowVGQA(ArrowVQAv2, published="arrow_vgqa"):
    """Visual Genome's questions: the tables `vgqa_*`.

    The classes are those of `ArrowVQAv2`.
    """


class ArrowSNLIVE(ArrowTables, published="snli_ve"):
    """SNLI-VE: the tables `snli_*`, which have no ids of pictures."""

    task = "entailment"
    labels = ENTAILMENT_LABELS
    columns = {"sentences": "list<list<string>>", "labels": "list<int64>"}

    def key(self, number, row):
        return number

    def samples(self, key, row):
        pairs = zip(row["sentences"], row["labels"], strict=True)
        for i, ((_, hypothesis), label) in enumerate(pairs):
            yield Sample(f"{key}#{i}", hypothesis.strip(), (int(label),))


class ArrowNLVR2(ArrowTables, published="nlvr2"):
    """NLVR2: the tables `nlvr2_*`.

    An official identifier has four parts: split, set, pair and sentence. The
    tables lack the number of the sentence, so the distinct sentences of a set
    are numbered in order of occurrence. The consistency metric finds all pairs
    with one sentence, but the numbers may differ from the official ones. Use
    the original files (`nlvr2`) to write official files of predictions.
    """

    task = "nlvr2"
    labels = NLVR2_LABELS
    columns = {
        "questions": "list<string>",
        "answers": "list<string>",
        "identifier": "string",
    }
    pictures = ("image_0", "image_1")

    def drafts(self, part):
        numbers = collections.defaultdict(dict)
        for draft in super().drafts(part):
            # An identifier without the pair names its set.
            of_set = numbers[draft.samples[0].id.rpartition("-")[0]]
            repeats, samples = collections.Counter(), []
            for sample in draft.samples:
                # Two people may have written the same sentence about a pair.
                sentence = sample.text, repeats[sample.text]
                repeats[sample.text] += 1
                number = of_set.setdefault(sentence, len(of_set))
                name = f"{sample.id}-{number}"
                samples.append(dataclasses.replace(sample, id=name))
            yield dataclasses.replace(draft, samples=tuple(samples))

    def key(self, number, row):
        return row["identifier"]

    def samples(self, key, row):
        pairs = zip(row["questions"], row["answers"], strict=True)
        for sentence, answer in pairs:
            yield Sample(row["identifier"], sentence, (self.ids[answer],))
