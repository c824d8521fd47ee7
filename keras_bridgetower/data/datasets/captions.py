"""Readers of captions: COCO, Flickr30K, Visual Genome, CC3M and SBU."""

import pathlib

from keras_bridgetower.data.datasets import tables
from keras_bridgetower.data.datasets.base import DataSet
from keras_bridgetower.data.datasets.base import Split
from keras_bridgetower.data.datasets.base import distinct_texts
from keras_bridgetower.data.datasets.base import first_five
from keras_bridgetower.data.records.format import Draft
from keras_bridgetower.data.records.format import Sample

COCO = "coco_caption_karpathy_"
FLICKR = "f30k_caption_karpathy_"


def _distinct(parts, words, leak=""):
    return Split(parts, words, leak, distinct_texts)


def _karpathy_protocols(prefix, train, official_train):
    """Return the protocols of one of Karpathy's files."""
    five = {
        name: Split(
            (f"{prefix}{part}",),
            f"Karpathy's {part}, the first five captions of each picture.",
            keep=first_five,
        )
        for name, part in (("validation", "val"), ("test", "test"))
    }
    test = _distinct(
        (f"{prefix}test",),
        "Karpathy's test, distinct captions.",
        "the official validation is the test table, so epochs are chosen on "
        "test.",
    )
    return {
        "honest": {"train": train} | five,
        "official": {
            "train": official_train,
            "validation": test,
            "test": test,
        },
    }


class Karpathy(DataSet):
    """Abstract: reads pictures and sentences from one of Karpathy's files.

    Source: the schema of Karpathy's `dataset_*.json`.
    """

    task = "captions"
    prefix = None
    annotations = ()

    def files(self, part):
        return self.annotations, (self.folder(part),)

    def drafts(self, part):
        path = self.path(*self.annotations)
        keys = {"filename": str, "split": str, "sentences": list}
        wanted = part.removeprefix(self.prefix)
        for row in tables.json_rows(path, keys, "images"):
            if row["split"] != wanted:
                continue
            name = row["filename"]
            folder = self.root / self.picture_folder(name)
            place = f"the sentences of {name} in {path}"
            tables.check_rows(place, row["sentences"], {"raw": str})
            yield Draft(
                name,
                (self.picture_in(folder, name),),
                tuple(
                    Sample(str(s.get("sentid", f"{name}#{i}")), s["raw"])
                    for i, s in enumerate(row["sentences"])
                ),
                part,
            )


_COCO_TRAIN = _distinct(
    (f"{COCO}train", f"{COCO}restval"),
    "Karpathy's train and restval, distinct captions. restval is of val2014, "
    "the honest validation of VQAv2.",
)


class COCOCaptions(Karpathy):
    """COCO captions: `train2014/`, `val2014/`, `karpathy/dataset_coco.json`.

    The official protocol chooses the best epoch on the test set and does not
    use Karpathy's validation set. The honest protocol chooses it on his
    validation set. There, both sets have the first five captions of each
    picture, 25,000 in all.
    """

    prefix = COCO
    annotations = ("karpathy/dataset_coco.json", "dataset_coco.json")
    sizes = {
        f"{COCO}train": (82_783, None),
        f"{COCO}restval": (30_504, None),
        f"{COCO}val": (5_000, None),
        f"{COCO}test": (5_000, None),
    }
    protocols = _karpathy_protocols(COCO, _COCO_TRAIN, _COCO_TRAIN)

    def folder(self, part):
        return "train2014" if part == f"{COCO}train" else "val2014"

    def picture_folder(self, name):
        # COCO_<folder>_<number>.jpg
        return name.split("_")[1]


class Flickr30K(Karpathy):
    """Flickr30K: `flickr30k-images/`, `karpathy/dataset_flickr30k.json`.

    The official protocol trains on Karpathy's validation set too, and chooses
    the best epoch on the test set. The honest protocol uses the three sets
    unchanged.
    """

    prefix = FLICKR
    annotations = ("karpathy/dataset_flickr30k.json", "dataset_flickr30k.json")
    # The usual numbers, not counted on the files.
    sizes = {
        f"{FLICKR}train": (29_000, None),
        f"{FLICKR}val": (1_014, None),
        f"{FLICKR}test": (1_000, None),
    }
    protocols = _karpathy_protocols(
        FLICKR,
        _distinct((f"{FLICKR}train",), "Karpathy's train, distinct captions."),
        _distinct(
            (f"{FLICKR}train", f"{FLICKR}val"),
            "Karpathy's train and val, distinct captions.",
        ),
    )

    def folder(self, part):
        return "flickr30k-images"

    def picture_folder(self, name):
        return "flickr30k-images"


_GENOME = {
    "train": _distinct(
        ("vg",),
        "All pictures, distinct region phrases; there is no other split. Some "
        "pictures are those of val2014 and of Karpathy's test.",
    )
}
GENOME_FOLDERS = (
    ("images/VG_100K", "VG_100K"),
    ("images/VG_100K_2", "VG_100K_2"),
)


def genome_pictures(data):
    """Return a function that finds pictures in Visual Genome's two folders."""
    first, second = (data.path(*places) for places in GENOME_FOLDERS)
    here = {path.name for path in first.iterdir()}
    return lambda name: data.picture_in(first if name in here else second, name)


class VisualGenome(DataSet):
    """Visual Genome: each phrase about a region is a caption of the picture.

    Files: `annotations/region_descriptions.json`, `VG_100K/`, `VG_100K_2/`.
    """

    task = "captions"
    protocols = {"honest": _GENOME, "official": _GENOME}
    annotations = (
        "annotations/region_descriptions.json",
        "region_descriptions.json",
    )

    def files(self, part):
        return (self.annotations, *GENOME_FOLDERS)

    def drafts(self, part):
        path = self.path(*self.annotations)
        rows = tables.json_rows(path, {"id": int, "regions": list})
        find = genome_pictures(self)
        for row in rows:
            name = f"{row['id']}.jpg"
            place = f"the regions of picture {row['id']} in {path}"
            tables.check_rows(place, row["regions"], {"phrase": str})
            samples = tuple(
                Sample(f"{row['id']}#{i}", region["phrase"])
                for i, region in enumerate(row["regions"])
            )
            if samples:
                yield Draft(name, (find(name),), samples, part)


_CC3M_TRAIN = _distinct(
    ("conceptual_caption_train",),
    "Pairs of the training table whose picture was downloaded.",
)
_CC3M_VAL = _distinct(
    ("conceptual_caption_val",),
    "Pairs of the validation table whose picture was downloaded.",
)
CC3M_PROTOCOLS = {
    "honest": {"train": _CC3M_TRAIN, "validation": _CC3M_VAL},
    "official": {"train": _CC3M_TRAIN},
}
_SBU = {"train": _distinct(("sbu",), "All pairs whose picture was downloaded.")}
SBU_PROTOCOLS = {"honest": _SBU, "official": _SBU}


class CC3M(DataSet):
    """Conceptual Captions (CC3M): tables of captions and urls.

    Files: `utils/Train_GCC-training.tsv`, which has no header,
    `train_image/<row>.<ext>`, and `train_image_exist.txt`, the list of
    downloaded pictures; likewise for validation.
    """

    task = "captions"
    protocols = CC3M_PROTOCOLS
    sources = {
        "conceptual_caption_train": ("train", "Train_GCC-training.tsv"),
        "conceptual_caption_val": (
            "val",
            "Validation_GCC-1.1.0-Validation.tsv",
        ),
    }

    def files(self, part):
        short, table = self.sources[part]
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
            for line in tables.read_text(listed).split("\n")
        )
        exists = {name.split(".")[0]: name for name in names if name}
        for number, line in enumerate(tables.read_text(table).split("\n")):
            name = exists.get(str(number))
            if name is None:
                continue
            sample = Sample(str(number), line.partition("\t")[0])
            yield Draft(name, (self.picture_in(folder, name),), (sample,), part)


class SBU(DataSet):
    """SBU captions: `sbu-captions-all.json` and `SBU/<end of the url>`."""

    task = "captions"
    protocols = SBU_PROTOCOLS

    def files(self, part):
        return ("sbu-captions-all.json",), ("SBU",)

    def drafts(self, part):
        path, folder = (self.path(*places) for places in self.files(part))
        content = tables.load_json(path)
        tables.check_row(
            path, 0, content, {"captions": list, "image_urls": list}
        )
        urls, captions = content["image_urls"], content["captions"]
        exists = {entry.name for entry in folder.iterdir()}
        samples = {}
        pairs = enumerate(zip(urls, captions, strict=True))
        for number, (url, caption) in pairs:
            name = str(url).rsplit("/", 1)[-1]
            if name in exists:
                row = {"captions": caption}
                tables.check_row(path, number, row, {"captions": str})
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
    sources = {
        "conceptual_caption_train": (("train_annot.json",), "images_train"),
        "conceptual_caption_val": (("val_annot.json",), "images_val"),
        "sbu": (("annot.json", "train_annot.json"), "images_train"),
    }

    def files(self, part):
        annotations, folder = self.sources[part]
        return annotations, (folder,)

    def drafts(self, part):
        path, folder = (self.path(*places) for places in self.files(part))
        rows = enumerate(tables.json_rows(path, {}))
        for number, (their_path, caption) in rows:
            name = pathlib.PurePath(their_path).name
            picture = self.picture_in(folder / name[:4], name)
            sample = Sample(str(number), caption)
            yield Draft(name, (picture,), (sample,), part)


class CC3MAnnotated(AnnotatedPairs):
    """CC3M in the files of ViLT and METER."""

    protocols = CC3M_PROTOCOLS


class SBUAnnotated(AnnotatedPairs):
    """SBU captions in the files of ViLT and METER."""

    protocols = SBU_PROTOCOLS
