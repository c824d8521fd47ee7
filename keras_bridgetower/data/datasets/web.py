"""Readers of CC3M and SBU: captions from the web, for downloaded pictures."""

import pathlib

from keras_bridgetower.data.datasets.base import DataSet
from keras_bridgetower.data.datasets.base import Split
from keras_bridgetower.data.datasets.base import distinct_texts
from keras_bridgetower.data.datasets.tables import check_row
from keras_bridgetower.data.datasets.tables import json_rows
from keras_bridgetower.data.datasets.tables import load_json
from keras_bridgetower.data.datasets.tables import read_text
from keras_bridgetower.data.records.format import Draft
from keras_bridgetower.data.records.format import Sample

CC3M_TRAIN = Split(
    ("conceptual_caption_train",),
    "Pairs of the training table whose picture was downloaded.",
    keep=distinct_texts,
)
CC3M_PROTOCOLS = {
    "honest": {
        "train": CC3M_TRAIN,
        "validation": Split(
            ("conceptual_caption_val",),
            "Pairs of the validation table whose picture was downloaded.",
            keep=distinct_texts,
        ),
    },
    "official": {"train": CC3M_TRAIN},
}
SBU_TRAIN = Split(
    ("sbu",),
    "All pairs whose picture was downloaded.",
    keep=distinct_texts,
)
SBU_PROTOCOLS = {
    "honest": {"train": SBU_TRAIN},
    "official": {"train": SBU_TRAIN},
}


class CC3M(DataSet):
    """Conceptual Captions (CC3M): tables of captions and urls.

    Files: `utils/Train_GCC-training.tsv`, which has no header,
    `train_image/<row>.<ext>`, and `train_image_exist.txt`, the list of
    pictures that were downloaded; likewise for validation.
    """

    task = "captions"
    protocols = CC3M_PROTOCOLS
    tables = {
        "conceptual_caption_train": ("train", "Train_GCC-training.tsv"),
        "conceptual_caption_val": (
            "val",
            "Validation_GCC-1.1.0-Validation.tsv",
        ),
    }

    def files(self, part):
        short, table = self.tables[part]
        return (
            (f"utils/{table}", table),
            (f"{short}_image_exist.txt",),
            (f"{short}_image",),
        )

    def drafts(self, part):
        table, listed, folder = (
            self.path(*places) for places in self.files(part)
        )
        # The lists have paths of the machine that downloaded the pictures.
        names = (
            pathlib.PurePath(line.strip()).name
            for line in read_text(listed).split("\n")
        )
        exists = {name.split(".")[0]: name for name in names if name}
        for number, line in enumerate(read_text(table).split("\n")):
            name = exists.get(str(number))
            if name is None:
                continue
            caption, *rest = line.split("\t")
            if not rest:
                raise ValueError(
                    f"Each row of {table} must be a caption, a tab and a url. "
                    f"Received: row {number}: {line!r:.100}"
                )
            sample = Sample(str(number), caption)
            yield Draft(name, (self.picture_in(folder, name),), (sample,), part)


class SBU(DataSet):
    """SBU captions: `sbu-captions-all.json` and `SBU/<end of the url>`."""

    task = "captions"
    protocols = SBU_PROTOCOLS

    def files(self, part):
        return ("sbu-captions-all.json",), ("SBU",)

    def drafts(self, part):
        path, folder = (self.path(*places) for places in self.files(part))
        held = load_json(path)
        check_row(path, 0, held, {"captions": list, "image_urls": list})
        urls, captions = held["image_urls"], held["captions"]
        if len(urls) != len(captions):
            raise ValueError(
                f"{path} must have a caption for each url. Received: "
                f"{len(captions)} captions, {len(urls)} image_urls"
            )
        exists = {entry.name for entry in folder.iterdir()}
        samples = {}
        for number, (url, caption) in enumerate(
            zip(urls, captions, strict=True)
        ):
            name = str(url).rsplit("/", 1)[-1]
            if name in exists:
                check_row(
                    path, number, {"captions": caption}, {"captions": str}
                )
                sample = Sample(str(number), caption)
                samples.setdefault(name, []).append(sample)
        for name, of_picture in samples.items():
            picture = self.picture_in(folder, name)
            yield Draft(name, (picture,), tuple(of_picture), part)


class AnnotatedPairs(DataSet):
    """Abstract: reads CC3M or SBU in the files of ViLT and METER.

    Files: `train_annot.json` (`annot.json` for SBU) and `val_annot.json`, a
    list of `[path, caption]`; `images_train/<first 4 characters>/<name>`.
    """

    task = "captions"
    tables = {
        "conceptual_caption_train": (("train_annot.json",), "images_train"),
        "conceptual_caption_val": (("val_annot.json",), "images_val"),
        "sbu": (("annot.json", "train_annot.json"), "images_train"),
    }

    def files(self, part):
        annotations, folder = self.tables[part]
        return annotations, (folder,)

    def drafts(self, part):
        path, folder = (self.path(*places) for places in self.files(part))
        for number, row in enumerate(json_rows(path, {})):
            pair = row if isinstance(row, list) and len(row) == 2 else ()
            if not all(isinstance(value, str) for value in pair) or not pair:
                raise ValueError(
                    f"Each row of {path} must be a path and a caption. "
                    f"Received: row {number}: {row!r:.100}"
                )
            name = pathlib.PurePath(pair[0]).name
            picture = self.picture_in(folder / name[:4], name)
            sample = Sample(str(number), pair[1])
            yield Draft(name, (picture,), (sample,), part)


class CC3MAnnotated(AnnotatedPairs):
    """CC3M in the files of ViLT and METER."""

    protocols = CC3M_PROTOCOLS


class SBUAnnotated(AnnotatedPairs):
    """SBU captions in the files of ViLT and METER."""

    protocols = SBU_PROTOCOLS
