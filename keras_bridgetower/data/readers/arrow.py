"""Arrow tables as ViLT, METER and BridgeTower write them."""

import dataclasses
import functools
import re

from keras_bridgetower.data.readers import captions
from keras_bridgetower.data.readers import nlvr2
from keras_bridgetower.data.readers import snli_ve
from keras_bridgetower.data.readers import vg_qa
from keras_bridgetower.data.readers import vqa
from keras_bridgetower.data.readers import vqa_splits
from keras_bridgetower.data.readers import web
from keras_bridgetower.data.readers.base import DataSet
from keras_bridgetower.data.readers.files import Picture
from keras_bridgetower.data.record_format import Draft
from keras_bridgetower.data.record_format import Sample

_INSTALL = (
    "Arrow tables need pyarrow: `pip install pyarrow`, or install "
    "keras-bridgetower with its extra `data`."
)


@functools.lru_cache(maxsize=64)
def open_table(path):
    """A table on the disk, mapped into memory and not read.

    Args:
        path: str, path of a file in Arrow's IPC format.

    Returns:
        `pyarrow.Table`.

    Raises:
        ImportError: pyarrow is not installed.
        ValueError: not such a file.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError(_INSTALL) from error
    try:
        return pyarrow.ipc.open_file(pyarrow.memory_map(path)).read_all()
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ValueError(
            f"{path} must be a file in Arrow's IPC format ({error}). It may "
            "be cut: fetch or write it again."
        ) from error


@dataclasses.dataclass(frozen=True, slots=True)
class ArrowPicture(Picture):
    """A picture in a cell of a table.

    Args:
        path: str, the table's file.
        column: str.
        row: int.
    """

    path: str
    column: str
    row: int

    def read(self):
        return open_table(self.path)[self.column][self.row].as_py() or b""


class ArrowTables(DataSet):
    """Abstract: tables with one row for each picture or pair of pictures.

    A part is the file `<part>.arrow`, or the files `<part>_<number>.arrow`.
    Test tables hold empty lists of another type where there is no answer;
    each table is read by itself, so nothing needs to be promoted.
    """

    columns = ()
    pictures = ("image",)

    def files(self, part):
        return tuple((path.name,) for path in self._tables(part)) or (
            (f"{part}.arrow", f"{part}_0.arrow"),
        )

    def drafts(self, part):
        places = self.files(part)
        for path in (self.path(*place) for place in places):
            table = open_table(str(path))
            missing = {*self.columns, *self.pictures} - {*table.column_names}
            if missing:
                raise ValueError(
                    f"{path} must have the columns "
                    f"{[*self.pictures, *self.columns]}. Received: "
                    f"{table.column_names}"
                )
            texts = table.select(list(self.columns))
            number = 0
            for batch in texts.to_batches(max_chunksize=1000):
                for row in batch.to_pylist():
                    pictures = tuple(
                        ArrowPicture(str(path), column, number)
                        for column in self.pictures
                    )
                    key = f"{path.stem}/{self.key_of(number, row)}"
                    samples = tuple(self.samples(key, row))
                    number += 1
                    if samples:
                        yield Draft(key, pictures, samples, part)

    def key_of(self, number, row):
        """What names a row of a table."""
        return row["image_id"]

    def samples(self, key, row):
        """The samples of a row."""
        raise NotImplementedError

    def _tables(self, part):
        name = re.compile(rf"{re.escape(part)}(?:_(\d+))?\.arrow")
        found = [
            (int(match[1] or 0), path)
            for path in self.root.iterdir()
            if (match := name.fullmatch(path.name))
        ]
        return [path for _, path in sorted(found)]


class ArrowCaptions(ArrowTables):
    """Abstract: columns `image`, `caption`, `image_id`."""

    task = "captions"
    columns = ("caption", "image_id")

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
    """The tables `vqav2_*`; the classes are read from all of them."""

    task = "vqa"
    columns = (
        "questions",
        "answers",
        "answer_labels",
        "answer_scores",
        "image_id",
        "question_id",
    )
    protocols = vqa_splits.TABLE_PROTOCOLS
    sizes = vqa.VQAv2.sizes
    prefix = "vqav2"

    @functools.cached_property
    def labels(self):
        names = {}
        for path in sorted(self.root.glob(f"{self.prefix}_*.arrow")):
            columns = open_table(str(path)).select(["answers", "answer_labels"])
            for batch in columns.to_batches(max_chunksize=1000):
                for row in batch.to_pylist():
                    for answers, ids in zip(*row.values(), strict=True):
                        names.update(zip(ids, answers, strict=True))
        if not names:
            raise ValueError(
                f"Some table {self.prefix}_*.arrow in {self.root} must hold "
                "answers. Received: none"
            )
        # Classes that no question of these tables has keep their places.
        return [names.get(i, f"unknown {i}") for i in range(max(names) + 1)]

    def samples(self, key, row):
        for i, question in enumerate(row["questions"]):
            target = ()
            if row["answer_labels"] and row["answer_labels"][i]:
                target = tuple(
                    tuple(row[c][i]) for c in ("answer_labels", "answer_scores")
                )
            yield Sample(str(row["question_id"][i]), question, *target)


class ArrowVGQA(ArrowVQAv2):
    """The tables `vgqa_*`."""

    protocols = vg_qa.TABLE_PROTOCOLS
    sizes = vg_qa.VGQA.sizes
    prefix = "vgqa"


class ArrowSNLIVE(ArrowTables):
    """The tables `snli_*`, of premise and hypothesis; no ids."""

    task = "entailment"
    labels = list(snli_ve.LABELS)
    columns = ("sentences", "labels")
    protocols = snli_ve.SNLIVE.protocols
    sizes = snli_ve.SNLIVE.sizes

    def key_of(self, number, row):
        return number

    def samples(self, key, row):
        pairs = zip(row["sentences"], row["labels"], strict=True)
        for i, ((_, hypothesis), label) in enumerate(pairs):
            yield Sample(f"{key}#{i}", hypothesis.strip(), (label,))


class ArrowNLVR2(ArrowTables):
    """The tables `nlvr2_*`."""

    task = "nlvr2"
    labels = list(nlvr2.LABELS)
    columns = ("questions", "answers", "identifier")
    pictures = ("image_0", "image_1")
    protocols = nlvr2.NLVR2.protocols
    sizes = nlvr2.NLVR2.sizes

    def key_of(self, number, row):
        return row["identifier"]

    def samples(self, key, row):
        pairs = zip(row["questions"], row["answers"], strict=True)
        for i, (sentence, answer) in enumerate(pairs):
            label = nlvr2.label_id(self.root, key, answer)
            yield Sample(f"{key}-{i}", sentence, (label,))
