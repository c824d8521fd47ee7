"""Reader of NLVR2: sentences that are true or false of two pictures."""

from keras_bridgetower.data.datasets.base import DataSet
from keras_bridgetower.data.datasets.base import Split
from keras_bridgetower.data.datasets.tables import json_lines
from keras_bridgetower.data.records.format import Draft
from keras_bridgetower.data.records.format import Sample

LABELS = ("False", "True")
SPLITS = {
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


def label_id(path, row, label):
    """The id of a label, which must be `"False"` or `"True"`."""
    if label not in LABELS:
        raise ValueError(
            f"Each label of {path} must be one of {list(LABELS)}. Received: "
            f"{label!r} in row {row}"
        )
    return LABELS.index(label)


class NLVR2(DataSet):
    """NLVR2: `data/*.json`, `images/train/<directory>/`, `dev/`, `test1/`.

    A record is a pair of pictures with all of its sentences. Ids of samples
    are the `identifier`s of the files. Pictures are named .png, but many are
    JPEG. No sample is in two splits, so the honest and the official protocol
    are the same.
    """

    task = "nlvr2"
    labels = list(LABELS)
    protocols = {"honest": SPLITS, "official": SPLITS}
    # Numbers of sentences as published; not counted on the files.
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
            label = label_id(path, number, str(row["label"]))
            sample = Sample(row["identifier"], row["sentence"], (label,))
            samples.setdefault(pair, []).append(sample)
            inner = folder / str(row.get("directory", ""))
            names = (f"{pair}-img{side}.png" for side in (0, 1))
            pictures[pair] = tuple(self.picture_in(inner, n) for n in names)
        for pair, of_pair in samples.items():
            yield Draft(pair, pictures[pair], tuple(of_pair), part)
