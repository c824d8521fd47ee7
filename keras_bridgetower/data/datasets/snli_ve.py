"""Reader of SNLI-VE: sentences, and whether a picture entails each."""

from keras_bridgetower.data.datasets.base import DataSet
from keras_bridgetower.data.datasets.base import Split
from keras_bridgetower.data.datasets.tables import json_lines
from keras_bridgetower.data.records.format import Draft
from keras_bridgetower.data.records.format import Sample

# In the order of the authors' ids. SNLI itself has the reverse order.
LABELS = ("contradiction", "neutral", "entailment")
SPLITS = {
    "train": Split(("snli_train",), "The training pairs."),
    "validation": Split(("snli_dev",), "The dev pairs."),
    "test": Split(("snli_test",), "The test pairs."),
}
# The authors' program that generates the files misspells the key, and its
# values end in `.jpg`.
IMAGE_KEYS = ("Flickr30K_ID", "Flikr30kID")


class SNLIVE(DataSet):
    """SNLI-VE: `snli_ve_{train,dev,test}.jsonl` and `flickr30k-images/`.

    The text is the hypothesis, `sentence2`. No sample is in two splits, so
    the honest and the official protocol are the same.
    """

    task = "entailment"
    labels = list(LABELS)
    protocols = {"honest": SPLITS, "official": SPLITS}
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
            label = row["gold_label"]
            if label not in LABELS:
                raise ValueError(
                    f"Each gold_label of {path} must be one of "
                    f"{list(LABELS)}. Received: {label!r} in row {number}"
                )
            sample = Sample(
                f"{part}-{number}",
                row["sentence2"].strip(),
                (LABELS.index(label),),
            )
            image = _image_of(path, number, row)
            samples.setdefault(image, []).append(sample)
        for image, of_picture in samples.items():
            picture = self.picture_in(folder, f"{image}.jpg")
            yield Draft(image, (picture,), tuple(of_picture), part)


def _image_of(path, number, row):
    for key in IMAGE_KEYS:
        if key in row:
            return str(row[key]).removesuffix(".jpg")
    raise ValueError(
        f"Each row of {path} must have one of the keys {list(IMAGE_KEYS)}. "
        f"Received: row {number}: {row!r:.100}"
    )
