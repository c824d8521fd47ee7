"""Readers of captions and of statements about pictures.

Captions: COCO, Flickr30K, Visual Genome, CC3M and SBU. Statements: SNLI-VE and
NLVR2.
"""

import pathlib

from keras_bridgetower.data.datasets.base import DataSet
from keras_bridgetower.data.datasets.tables import json_lines
from keras_bridgetower.data.datasets.tables import load_json
from keras_bridgetower.data.datasets.tables import text_lines
from keras_bridgetower.data.records.format import Draft
from keras_bridgetower.data.records.format import Sample


class Karpathy(DataSet):
    """Abstract: reads pictures and sentences from one of Karpathy's files.

    Source: the schema of Karpathy's `dataset_*.json`.
    """

    task = "captions"
    annotations = ()

    def files(self, part):
        return self.annotations, (self.folder(part),)

    def drafts(self, part):
        wanted = part.rpartition("_")[2]
        for row in load_json(self.path(*self.annotations))["images"]:
            if row["split"] != wanted:
                continue
            name = row["filename"]
            folder = self.root / self.picture_folder(name)
            yield Draft(
                name,
                (self.picture_in(folder, name),),
                tuple(
                    Sample(str(s.get("sentid", f"{name}#{i}")), s["raw"])
                    for i, s in enumerate(row["sentences"])
                ),
                part,
            )


class COCOCaptions(Karpathy, published="coco"):
    """COCO captions: `train2014/`, `val2014/`, `karpathy/dataset_coco.json`.

    The official protocol chooses the best epoch on the test set and does not
    use Karpathy's validation set. The honest protocol chooses it on his
    validation set. There, both sets have the first five captions of each
    picture, 25,000 in all.
    """

    annotations = ("karpathy/dataset_coco.json", "dataset_coco.json")

    def folder(self, part):
        return "train2014" if part.endswith("_train") else "val2014"

    def picture_folder(self, name):
        # COCO_<folder>_<number>.jpg
        return name.split("_")[1]


class Flickr30K(Karpathy, published="flickr30k"):
    """Flickr30K: `flickr30k-images/`, `karpathy/dataset_flickr30k.json`.

    The official protocol trains on Karpathy's validation set too, and chooses
    the best epoch on the test set. The honest protocol uses the three sets
    unchanged.
    """

    annotations = ("karpathy/dataset_flickr30k.json", "dataset_flickr30k.json")

    def folder(self, part):
        return "flickr30k-images"

    picture_folder = folder


GENOME_FOLDERS = (
    ("images/VG_100K", "VG_100K"),
    ("images/VG_100K_2", "VG_100K_2"),
)


def genome_pictures(data):
    """Return a function that finds pictures in Visual Genome's two folders."""
    first, second = (data.path(*names) for names in GENOME_FOLDERS)
    here = {path.name for path in first.iterdir()}
    return lambda name: data.picture_in(first if name in here else second, name)


class VisualGenome(DataSet, published="visual_genome"):
    """Visual Genome: each phrase about a region is a caption of the picture.

    Files: `annotations/region_descriptions.json`, `VG_100K/`, `VG_100K_2/`.
    """

    task = "captions"
    annotations = (
        "annotations/region_descriptions.json",
        "region_descriptions.json",
    )

    def files(self, part):
        return (self.annotations, *GENOME_FOLDERS)

    def drafts(self, part):
        rows = load_json(self.path(*self.annotations))
        find = genome_pictures(self)
        for row in rows:
            name = f"{row['id']}.jpg"
            samples = tuple(
                Sample(f"{row['id']}#{i}", region["phrase"])
                for i, region in enumerate(row["regions"])
            )
            if samples:
                yield Draft(name, (find(name),), samples, part)


class CC3M(DataSet, published="cc3m"):
    """Conceptual Captions (CC3M): tables of captions and urls.

    Files: `utils/Train_GCC-training.tsv`, which has no header,
    `train_image/<row>.<ext>`, and `train_image_exist.txt`, the list of
    downloaded pictures; likewise for validation.
    """

    task = "captions"

    def files(self, part):
        short = part.rpartition("_")[2]
        table = {
            "train": "Train_GCC-training.tsv",
            "val": "Validation_GCC-1.1.0-Validation.tsv",
        }[short]
        listed, folder = f"{short}_image_exist.txt", f"{short}_image"
        return (f"utils/{table}", table), (listed,), (folder,)

    def drafts(self, part):
        table, listed, folder = self.paths(part)
        # The lists have paths of the machine that downloaded the pictures.
        names = (
            pathlib.PurePath(line.strip()).name for line in text_lines(listed)
        )
        exists = {name.split(".")[0]: name for name in names if name}
        for number, line in enumerate(text_lines(table)):
            name = exists.get(str(number))
            if name is not None:
                caption = line.rstrip("\n").partition("\t")[0]
                sample = Sample(str(number), caption)
                picture = self.picture_in(folder, name)
                yield Draft(name, (picture,), (sample,), part)


class SBU(DataSet, published="sbu"):
    """SBU captions: `sbu-captions-all.json` and `SBU/<end of the url>`."""

    task = "captions"

    def files(self, part):
        return ("sbu-captions-all.json",), ("SBU",)

    def drafts(self, part):
        path, folder = self.paths(part)
        content = load_json(path)
        urls, captions = content["image_urls"], content["captions"]
        exists = {entry.name for entry in folder.iterdir()}
        samples = {}
        pairs = enumerate(zip(urls, captions, strict=True))
        for number, (url, caption) in pairs:
            name = url.rpartition("/")[2]
            if name in exists:
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

    def files(self, part):
        short = "val" if part.endswith("_val") else "train"
        tables = (f"{short}_annot.json",)
        if part == "sbu":
            tables = ("annot.json", *tables)
        return tables, (f"images_{short}",)

    def drafts(self, part):
        path, folder = self.paths(part)
        for number, (their_path, caption) in enumerate(load_json(path)):
            name = pathlib.PurePath(their_path).name
            picture = self.picture_in(folder / name[:4], name)
            sample = Sample(str(number), caption)
            yield Draft(name, (picture,), (sample,), part)


class CC3MAnnotated(AnnotatedPairs, published="cc3m"):
    """CC3M in the files of ViLT and METER."""


class SBUAnnotated(AnnotatedPairs, published="sbu"):
    """SBU captions in the files of ViLT and METER."""


# In the order of the authors' ids. SNLI itself has the reverse order.
ENTAILMENT_LABELS = ["contradiction", "neutral", "entailment"]
NLVR2_LABELS = ["False", "True"]


class SNLIVE(DataSet, published="snli_ve"):
    """SNLI-VE: `snli_ve_{train,dev,test}.jsonl` and `flickr30k-images/`.

    The text is the hypothesis, `sentence2`. No sample is in two splits, so
    the honest and the official protocol are the same.
    """

    task = "entailment"
    labels = ENTAILMENT_LABELS

    def files(self, part):
        name = f"snli_ve_{part.removeprefix('snli_')}.jsonl"
        return (f"snli_ve/{name}", name), ("flickr30k-images",)

    def drafts(self, part):
        path, folder = self.paths(part)
        samples = {}
        for number, row in enumerate(json_lines(path), 1):
            text = row["sentence2"].strip()
            label = self.ids[row["gold_label"]]
            sample = Sample(f"{part}-{number}", text, (label,))
            # The authors' program that generates the files misspells the key,
            # and its values end in `.jpg`.
            key = "Flickr30K_ID" if "Flickr30K_ID" in row else "Flikr30kID"
            image = str(row[key]).removesuffix(".jpg")
            samples.setdefault(image, []).append(sample)
        for image, of_picture in samples.items():
            picture = self.picture_in(folder, f"{image}.jpg")
            yield Draft(image, (picture,), tuple(of_picture), part)


class NLVR2(DataSet, published="nlvr2"):
    """NLVR2: `data/*.json`, `images/train/<directory>/`, `dev/`, `test1/`.

    A record is a pair of pictures with all of its sentences. Ids of samples
    are the `identifier`s of the files. Pictures are named .png, but many are
    JPEG. No sample is in two splits, so the honest and the official protocol
    are the same.
    """

    task = "nlvr2"
    labels = NLVR2_LABELS

    def files(self, part):
        *balance, name = part.removeprefix("nlvr2_").split("_")
        table = "/".join([*balance, "_".join([*balance, name])]) + ".json"
        folders = ("nlvr2/data", "nlvr/nlvr2/data", "data")
        folder = {"train": "images/train"}.get(name, name)
        return tuple(f"{path}/{table}" for path in folders), (folder,)

    def drafts(self, part):
        path, folder = self.paths(part)
        samples, pictures = {}, {}
        for row in json_lines(path):
            pair = row["identifier"].rpartition("-")[0]
            label = self.ids[str(row["label"])]
            sample = Sample(row["identifier"], row["sentence"], (label,))
            samples.setdefault(pair, []).append(sample)
            inner = folder
            if part == "nlvr2_train":
                inner = folder / str(row["directory"])
            names = (f"{pair}-img{side}.png" for side in (0, 1))
            pictures[pair] = tuple(self.picture_in(inner, n) for n in names)
        for pair, of_pair in samples.items():
            yield Draft(pair, pictures[pair], tuple(of_pair), part)
