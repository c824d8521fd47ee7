"""Readers of captions: COCO, Flickr30K (Karpathy's splits), Visual Genome."""

from keras_bridgetower.data.datasets.base import DataSet
from keras_bridgetower.data.datasets.base import Split
from keras_bridgetower.data.datasets.base import distinct_texts
from keras_bridgetower.data.datasets.base import first_five
from keras_bridgetower.data.datasets.tables import check_row
from keras_bridgetower.data.datasets.tables import json_rows
from keras_bridgetower.data.records.format import Draft
from keras_bridgetower.data.records.format import Sample

COCO = "coco_caption_karpathy_"
FLICKR = "f30k_caption_karpathy_"
TEST_AS_VALIDATION = (
    "the official validation is the test table, so epochs are chosen on test."
)
COCO_TRAIN = Split(
    (f"{COCO}train", f"{COCO}restval"),
    "Karpathy's train and restval, distinct captions. restval is of val2014, "
    "the honest validation of VQAv2.",
    keep=distinct_texts,
)
VISUAL_GENOME = {
    "train": Split(
        ("vg",),
        "All pictures, distinct region phrases; there is no other split. Some "
        "pictures are those of val2014 and of Karpathy's test.",
        keep=distinct_texts,
    )
}


class Karpathy(DataSet):
    """Abstract: reads pictures and sentences from one of Karpathy's files.

    Source: the schema of Karpathy's `dataset_*.json`.
    """

    task = "captions"
    prefix = None
    annotations = ()

    def files(self, part):
        return (self.annotations, *((f,) for f in self.folders(part)))

    def drafts(self, part):
        path = self.path(*self.annotations)
        keys = {"filename": str, "split": str, "sentences": list}
        wanted = part.removeprefix(self.prefix)
        for row in json_rows(path, keys, "images"):
            if row["split"] != wanted:
                continue
            name = row["filename"]
            folder = self.root / self.folder_of(path, name)
            for i, sentence in enumerate(row["sentences"]):
                place = f"the sentences of {name} in {path}"
                check_row(place, i, sentence, {"raw": str})
            yield Draft(
                name,
                (self.picture_in(folder, name),),
                tuple(
                    Sample(str(s.get("sentid", f"{name}#{i}")), s["raw"])
                    for i, s in enumerate(row["sentences"])
                ),
                part,
            )


class COCOCaptions(Karpathy):
    """COCO captions: `train2014/`, `val2014/`, `karpathy/dataset_coco.json`.

    In the official protocol the best epoch is chosen on the test set, and
    Karpathy's validation set is not used. In the honest protocol it is chosen
    on his validation set. There, both sets have the first five captions of
    each picture, 25,000 in all.
    """

    prefix = COCO
    annotations = ("karpathy/dataset_coco.json", "dataset_coco.json")
    sizes = {
        f"{COCO}train": (82_783, None),
        f"{COCO}restval": (30_504, None),
        f"{COCO}val": (5_000, None),
        f"{COCO}test": (5_000, None),
    }
    protocols = {
        "honest": {
            "train": COCO_TRAIN,
            "validation": Split(
                (f"{COCO}val",),
                "Karpathy's val, the first five captions of each picture.",
                keep=first_five,
            ),
            "test": Split(
                (f"{COCO}test",),
                "Karpathy's test, the first five captions of each picture.",
                keep=first_five,
            ),
        },
        "official": {
            "train": COCO_TRAIN,
            "validation": Split(
                (f"{COCO}test",),
                "Karpathy's test, distinct captions.",
                TEST_AS_VALIDATION,
                distinct_texts,
            ),
            "test": Split(
                (f"{COCO}test",),
                "Karpathy's test, distinct captions.",
                TEST_AS_VALIDATION,
                distinct_texts,
            ),
        },
    }

    def folders(self, part):
        table = {f"{COCO}train": ("train2014",)}
        return table.get(part, ("val2014",))

    def folder_of(self, path, name):
        parts = name.split("_")
        if len(parts) < 3:
            raise ValueError(
                f"Each filename of {path} must be COCO_<folder>_<number>.jpg. "
                f"Received: {name!r}"
            )
        return parts[1]


class Flickr30K(Karpathy):
    """Flickr30K: `flickr30k-images/`, `karpathy/dataset_flickr30k.json`.

    In the official protocol training includes Karpathy's validation set, and
    the best epoch is chosen on the test set. The honest protocol uses the
    three sets as they are.
    """

    prefix = FLICKR
    annotations = ("karpathy/dataset_flickr30k.json", "dataset_flickr30k.json")
    # As commonly told; not counted on the files.
    sizes = {
        f"{FLICKR}train": (29_000, None),
        f"{FLICKR}val": (1_014, None),
        f"{FLICKR}test": (1_000, None),
    }
    protocols = {
        "honest": {
            "train": Split(
                (f"{FLICKR}train",),
                "Karpathy's train, distinct captions.",
                keep=distinct_texts,
            ),
            "validation": Split(
                (f"{FLICKR}val",),
                "Karpathy's val, the first five captions of each picture.",
                keep=first_five,
            ),
            "test": Split(
                (f"{FLICKR}test",),
                "Karpathy's test, the first five captions of each picture.",
                keep=first_five,
            ),
        },
        "official": {
            "train": Split(
                (f"{FLICKR}train", f"{FLICKR}val"),
                "Karpathy's train and val, distinct captions.",
                keep=distinct_texts,
            ),
            "validation": Split(
                (f"{FLICKR}test",),
                "Karpathy's test, distinct captions.",
                TEST_AS_VALIDATION,
                distinct_texts,
            ),
            "test": Split(
                (f"{FLICKR}test",),
                "Karpathy's test, distinct captions.",
                TEST_AS_VALIDATION,
                distinct_texts,
            ),
        },
    }

    def folders(self, part):
        return ("flickr30k-images",)

    def folder_of(self, path, name):
        return "flickr30k-images"


class VisualGenome(DataSet):
    """Visual Genome: each phrase about a region is a caption of the picture.

    Files: `annotations/region_descriptions.json`, `VG_100K/`, `VG_100K_2/`.
    """

    task = "captions"
    protocols = {"honest": VISUAL_GENOME, "official": VISUAL_GENOME}
    annotations = (
        "annotations/region_descriptions.json",
        "region_descriptions.json",
    )

    def files(self, part):
        return (self.annotations, *GENOME_FOLDERS)

    def drafts(self, part):
        path = self.path(*self.annotations)
        rows = json_rows(path, {"id": int, "regions": list})
        find = genome_pictures(self)
        for row in rows:
            name = f"{row['id']}.jpg"
            for i, region in enumerate(row["regions"]):
                place = f"the regions of picture {row['id']} in {path}"
                check_row(place, i, region, {"phrase": str})
            samples = tuple(
                Sample(f"{row['id']}#{i}", region["phrase"])
                for i, region in enumerate(row["regions"])
            )
            if samples:
                yield Draft(name, (find(name),), samples, part)


GENOME_FOLDERS = (
    ("images/VG_100K", "VG_100K"),
    ("images/VG_100K_2", "VG_100K_2"),
)


def genome_pictures(data):
    """Make a function that finds pictures in Visual Genome's two folders."""
    first, second = (data.path(*places) for places in GENOME_FOLDERS)
    here = {path.name for path in first.iterdir()}
    return lambda name: data.picture_in(first if name in here else second, name)
