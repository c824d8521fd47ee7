"""Readers of statements about pictures: SNLI-VE and NLVR2."""

from keras_bridgetower.data.datasets.base import DataSet
from keras_bridgetower.data.datasets.base import published
from keras_bridgetower.data.datasets.tables import json_lines
from keras_bridgetower.data.records.format import Draft
from keras_bridgetower.data.records.format import Sample

# In the order of the authors' ids. SNLI itself has the reverse order.
ENTAILMENT_LABELS = ["contradiction", "neutral", "entailment"]
NLVR2_LABELS = ["False", "True"]


class SNLIVE(DataSet):
    """SNLI-VE: `snli_ve_{train,dev,test}.jsonl` and `flickr30k-images/`.

    The text is the hypothesis, `sentence2`. No sample is in two splits, so
    the honest and the official protocol are the same.
    """

    task = "entailment"
    labels = ENTAILMENT_LABELS
    protocols, sizes = published("snli_ve")

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
            image = row[
                "Flickr30K_ID" if "Flickr30K_ID" in row else "Flikr30kID"
            ]
            image = str(image).removesuffix(".jpg")
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
    labels = NLVR2_LABELS
    protocols, sizes = published("nlvr2")

    def files(self, part):
        *balance, name = part.removeprefix("nlvr2_").split("_")
        table = "/".join([*balance, "_".join([*balance, name])]) + ".json"
        places = ("nlvr2/data", "nlvr/nlvr2/data", "data")
        folder = {"train": "images/train"}.get(name, name)
        return tuple(f"{place}/{table}" for place in places), (folder,)

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
