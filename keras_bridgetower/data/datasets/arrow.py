"""Readers of data sets in Arrow tables, as BridgeTower's authors keep them."""

import collections
import dataclasses
import functools
import re

from keras_bridgetower.checks import load_extra
from keras_bridgetower.data.datasets import captions
from keras_bridgetower.data.datasets import statements
from keras_bridgetower.data.datasets import vqa
from keras_bridgetower.data.datasets.base import DataSet
from keras_bridgetower.data.datasets.tables import Picture
from keras_bridgetower.data.datasets.tables import label_id
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
            f"{path} must be a file in Arrow's IPC file format "
            f"({error!s:.300}). {_advice(path)}"
        ) from error
    return table


def read_rows(path, columns, kinds):
    """Read the rows of a table, without the pictures.

    Args:
        path: str, path of the file.
        columns: names of the columns to read.
        kinds: dict from all columns that the table must have to descriptions
            of types, such as `"list<string>"` or `"string or integer"`.

    Yields:
        dicts from names of columns to values.

    Raises:
        ValueError: the file is damaged, lacks a column, or has a wrong type
            or a null; the error names file, column and row.
    """
    table = open_table(path)
    missing = {*kinds} - {*table.column_names}
    if missing:
        raise ValueError(
            f"{path} must have the columns {list(kinds)}. Received: "
            f"{table.column_names}"
        )
    for column, wanted in kinds.items():
        found = _in_words(table.schema.field(column).type)
        if not _fits(found, wanted):
            raise ValueError(
                f"The column {column!r} of {path} must be of type {wanted}. "
                f"Received: {found}"
            )
    batches = table.select(list(columns)).to_batches(max_chunksize=_ROWS)
    for number, row in enumerate(
        row for batch in batches for row in batch.to_pylist()
    ):
        for column, value in row.items():
            if _has_none(value):
                raise ValueError(
                    f"The column {column!r} of {path} must hold no null. "
                    f"Received: {value!r:.100} in row {number}"
                )
        yield row


def _advice(path):
    import pyarrow

    try:
        pyarrow.ipc.open_stream(pyarrow.memory_map(path)).close()
    except (pyarrow.ArrowException, OSError, ValueError):
        return "It may be cut: fetch or write it again."
    return (
        "It is in the stream format, which the `datasets` library writes: "
        "read it with `pyarrow.ipc.open_stream` and write the table with "
        "`pyarrow.ipc.new_file`."
    )


def _in_words(kind):
    """Name a type of Arrow, without its number of bits."""
    from pyarrow import types

    lists = types.is_list, types.is_large_list, types.is_fixed_size_list
    if any(is_list(kind) for is_list in lists):
        return f"list<{_in_words(kind.value_type)}>"
    if types.is_integer(kind):
        return "integer"
    if types.is_floating(kind):
        return "float"
    # large_string and string_view are read as string.
    return str(kind).removeprefix("large_").removesuffix("_view")


def _fits(found, wanted):
    inner = [words[5:-1] for words in (found, wanted) if words[:5] == "list<"]
    if len(inner) == 2:
        return _fits(*inner)
    # The type of a column is null if its lists are empty in all rows.
    return found == "null" or found in wanted.split(" or ")


def _has_none(value):
    if isinstance(value, list):
        return any(map(_has_none, value))
    return value is None


@dataclasses.dataclass(frozen=True, slots=True)
class ArrowPicture(Picture):
    """A picture in a cell of a table.

    Args:
        path: str, path of the table.
        column: str, name of the column.
        row: int, number of the row.
    """

    WRITTEN_AS = "ArrowPicture(path={path}, column={column}, row={row})"

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
        columns: dict from the columns to read to their types, as in
            `read_rows`.
        pictures: tuple of str, the columns with pictures.
    """

    columns = {}
    pictures = ("image",)

    def files(self, part):
        return tuple((path.name,) for path in self._tables(part)) or (
            (f"{part}.arrow", f"{part}_0.arrow"),
        )

    def drafts(self, part):
        places = self.files(part)
        for path in (self.path(*place) for place in places):
            rows = self.rows(path, self.columns)
            for number, row in enumerate(rows):
                pictures = tuple(
                    ArrowPicture(str(path), column, number)
                    for column in self.pictures
                )
                key = f"{path.stem}/{self.key(number, row)}"
                samples = tuple(self.samples(key, row))
                if samples:
                    yield Draft(key, pictures, samples, part)

    def rows(self, path, columns):
        """Read some columns of a table, and check all."""
        images = dict.fromkeys(self.pictures, "binary")
        self.check_inside(path.absolute())
        return read_rows(str(path), columns, images | self.columns)

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

    Their column `split` has the name of a folder and is not read.
    """

    protocols = captions.CC3M_PROTOCOLS


class ArrowSBU(ArrowCaptions):
    """SBU captions: the tables `sbu_*`."""

    protocols = captions.SBU_PROTOCOLS


class ArrowVQAv2(ArrowTables):
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
        "answer_labels": "list<list<integer>>",
        "answer_scores": "list<list<float or integer>>",
        "image_id": "string or integer",
        "question_id": "list<string or integer>",
    }
    protocols = vqa.VQA_TABLE_PROTOCOLS
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
        questions = len(row["questions"])
        counts = {c: len(row[c]) for c in row if isinstance(row[c], list)}
        answers = {counts[c] for c in counts if c.startswith("answer")}
        if counts["question_id"] != questions or answers - {0, questions}:
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

    protocols = vqa.VGQA_TABLE_PROTOCOLS
    sizes = vqa.VGQA.sizes


class ArrowSNLIVE(ArrowTables):
    """SNLI-VE: the tables `snli_*`, which have no ids of pictures."""

    task = "entailment"
    labels = list(statements.ENTAILMENT_LABELS)
    columns = {"sentences": "list<list<string>>", "labels": "list<integer>"}
    protocols = statements.SNLIVE.protocols
    sizes = statements.SNLIVE.sizes

    def key(self, number, row):
        return number

    def samples(self, key, row):
        pairs = zip(row["sentences"], row["labels"], strict=True)
        for i, ((_, hypothesis), label) in enumerate(pairs):
            yield Sample(f"{key}#{i}", hypothesis.strip(), (label,))


class ArrowNLVR2(ArrowTables):
    """NLVR2: the tables `nlvr2_*`.

    An official identifier has four parts: split, set, pair and sentence. The
    tables lack the number of the sentence, so the distinct sentences of a set
    are numbered in order of occurrence. The consistency metric finds all pairs
    with one sentence, but the numbers may differ from the official ones. Use
    the original files (`nlvr2`) to write official files of predictions.
    """

    task = "nlvr2"
    labels = list(statements.NLVR2_LABELS)
    columns = {
        "questions": "list<string>",
        "answers": "list<string>",
        "identifier": "string",
    }
    pictures = ("image_0", "image_1")
    protocols = statements.NLVR2.protocols
    sizes = statements.NLVR2.sizes

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
            label = label_id(self.root, key, answer, self.labels)
            yield Sample(row["identifier"], sentence, (label,))


def _tables(data, prefix):
    return sorted(data.root.glob(f"{prefix}_*.arrow"))


def _named_answers(path, rows):
    """Return the set of all pairs `(answer, id)` in a table."""
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
