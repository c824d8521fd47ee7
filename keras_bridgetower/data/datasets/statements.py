"""Readers of statements about pictures: SNLI-VE and NLVR2."""

from keras_bridgetower.data.datasets.base import DataSet
from keras_bridgetower.data.datasets.base import Split
from keras_bridgetower.data.datasets.tables import check_row
from keras_bridgetower.data.datasets.tables import json_lines
from keras_bridgetower.data.datasets.tables import label_id
from keras_bridgetower.data.records.format import Draft
from keras_bridgetower.data.records.format import Sample

# In the order of the authors' ids. SNLI itself has the reverse order.
ENTAILMENT_LABELS = ("contradiction", "neutral", "entailment")
_SNLI_VE = {
    "train": Split(("snli_train",), "The training pairs."),
    "validation": Split(("snli_dev",), "The dev pairs."),
    "test": Split(("snli_test",), "The test pairs."),
}
# The authors' program that generates the files misspells the key, and its
# values end in `.jpg`.
_IMAGE_KEYS = ("Flickr30K_ID", "Flikr30kID")
NLVR2_LABELS = ("False", "True")
_NLVR2 = {
    "train": Split(("nlvr2_train",), "The training pairs."),
    "validation": Split(("nlvr2_dev",), "The dev pairs."),
    "test": Split(("nlvr2_test1",), "test1, the public test pairs."),
} | {
    f"{balance}_{name}": Split(
        (f"nlvr2_{balance}_{name}",), f"The {balance} pairs of {name}."
    )
    for balance in ("balanced", "unbalanced")
    for name in ("dev", "test1")
}


class SNLIVE(DataSet):
    """SNLI-VE: `snli_ve_{train,dev,test}.jsonl` and `flickr30k-images/`.

    The text is the hypothesis, `sentence2`. No sample is in two splits, so
    the honest and the official protocol are the same.
    """

    task = "entailment"
    labels = list(ENTAILMENT_LABELS)
    protocols = {"honest": _SNLI_VE, "official": _SNLI_VE}
    sizes = {
        "snli_train": (29_783, 529_527),
        "snli_dev": (1_000, 17_858),
        "snli_test": (1_000, 17_901),
    }

    def files(self, part):
        name = f"snli_ve_{part.removeprefix('snli_')}.jsonl"
        return (f"snli_ve/{name}", name), ("flickr30k-images",)

    def drafts(self, part):
        path, folder = (self.path(*places) for places in self.files(part))
        samples = {}
        keys = {"sentence2": str, "gold_label": str}
        for number, row in enumerate(json_lines(path, keys), 1):
            label = label_id(
                path, number, row["gold_label"], self.labels, "gold_label"
            )
            text = row["sentence2"].strip()
            sample = Sample(f"{part}-{number}", text, (label,))
            key = next((k for k in _IMAGE_KEYS if k in row), _IMAGE_KEYS[0])
            check_row(path, number, row, {key: (str, int)})
            image = str(row[key]).removesuffix(".jpg")
            samples.setdefault(image, []).append(sample)
        for image, of_picture in samples.items():
            picture = self.picture_in(folder, f"{image}.jpg")
            yield Draft(image, (picture,), tuple(of_picture), part)


class NLVR2(DataSet):
    """NLVR2: `data/*.json`, `images/train/<directory>/`, `dev/`, `test1/`.

    A record is a pair of pictures with all of its sentences. Ids of samples
    are the `identifier`s of the files. Pictures are named .png, but many are
    JPEG. No sample is in two splits, so the honest and the official protocol
    are the same.
    """

    task = "nlvr2"
    labels = list(NLVR2_LABELS)
    protocols = {"honest": _NLVR2, "official": _NLVR2}
    # Numbers of sentences as published, not counted on the files.
    sizes = {
        "nlvr2_train": (None, 86_373),
        "nlvr2_dev": (None, 6_982),
        "nlvr2_test1": (None, 6_967),
    }

    def files(self, part):
        *balance, name = part.removeprefix("nlvr2_").split("_")
        table = "/".join([*balance, "_".join([*balance, name])]) + ".json"
        places = ("nlvr2/data", "nlvr/nlvr2/data", "data")
        folder = {"train": "images/train"}.get(name, name)
        return tuple(f"{place}/{table}" for place in places), (folder,)

    def drafts(self, part):
        path, folder = (self.path(*places) for places in self.files(part))
        samples, pictures = {}, {}
        keys = {"sentence": str, "label": (str, bool), "identifier": str}
        if part == "nlvr2_train":
            keys["directory"] = (int, str)
        for number, row in enumerate(json_lines(path, keys), 1):
            pair = row["identifier"].rpartition("-")[0]
            label = label_id(path, number, str(row["label"]), self.labels)
            sample = Sample(row["identifier"], row["sentence"], (label,))
            samples.setdefault(pair, []).append(sample)
            inner = folder / str(row.get("directory", ""))
            names = (f"{pair}-img{side}.png" for side in (0, 1))
            pictures[pair] = tuple(self.picture_in(inner, n) for n in names)
        for pair, of_pair in samples.items():
            yield Draft(pair, pictures[pair], tuple(of_pair), part)
