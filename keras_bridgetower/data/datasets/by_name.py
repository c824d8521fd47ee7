"""Opens the original files of a data set by its name, and builds records."""

from keras_bridgetower.checks import check_choice
from keras_bridgetower.data.datasets import arrow
from keras_bridgetower.data.datasets import captions
from keras_bridgetower.data.datasets import unimodal
from keras_bridgetower.data.datasets import vqa
from keras_bridgetower.data.datasets.own_data import OwnData
from keras_bridgetower.data.records import write
from keras_bridgetower.data.records.format import read_index
from keras_bridgetower.data.records.read import open_records

DATASETS = {
    "coco": captions.COCOCaptions,
    "flickr30k": captions.Flickr30K,
    "visual_genome": captions.VisualGenome,
    "cc3m": captions.CC3M,
    "sbu": captions.SBU,
    "vqav2": vqa.VQAv2,
    "vgqa": vqa.VGQA,
    "snli_ve": captions.SNLIVE,
    "nlvr2": captions.NLVR2,
    "cifar10": unimodal.Cifar10,
    "cifar100": unimodal.Cifar100,
    "glue": unimodal.GLUE,
    "own": OwnData,
    "cc3m_annot": captions.CC3MAnnotated,
    "sbu_annot": captions.SBUAnnotated,
    "arrow_coco": arrow.ArrowCOCO,
    "arrow_flickr30k": arrow.ArrowFlickr30K,
    "arrow_visual_genome": arrow.ArrowVisualGenome,
    "arrow_cc3m": arrow.ArrowCC3M,
    "arrow_sbu": arrow.ArrowSBU,
    "arrow_vqav2": arrow.ArrowVQAv2,
    "arrow_vgqa": arrow.ArrowVGQA,
    "arrow_snli_ve": arrow.ArrowSNLIVE,
    "arrow_nlvr2": arrow.ArrowNLVR2,
}


def open_dataset(name, root, **options):
    r"""Open the original files of a data set.

    Args:
        name: str, a key of `DATASETS`.
        root: path of the folder of the files.
        **options: further arguments of the data set's class.

    Returns:
        `DataSet`.

    Raises:
        ValueError: an unknown data set or option, or a missing folder.

    Example:

    ```python
    with open("train.csv", "w") as file:
        file.write("text,label\nIt rained.,wet\nThe sun shone.,dry\n")
    data = open_dataset("own", ".")
    data.task, data.labels  # "text_classification", ["dry", "wet"]
    print(*data.check())
    ```
    """
    check_choice("name", name, sorted(DATASETS))
    cls = DATASETS[name]
    try:
        return cls(root, **options)
    except TypeError as error:
        raise ValueError(
            f"The options of {name!r} must be those of {cls.__name__} (`--set "
            f"KEY=VALUE` on the command line): {error}. Received: {options}"
        ) from error


def build_splits(data, folder, protocol, splits, **options):
    """Write splits of a data set as shards.

    Args:
        data: `base.DataSet`.
        folder: path or URL of the folder to write.
        protocol: str, one of the data set's.
        splits: list of str, or None for all of the protocol.
        **options: as in `write.write_shards`.

    Returns:
        list of pairs: the key of a record that was left out, and the reason.

    Raises:
        ValueError: as in `write.write_shards`.
    """
    left_out = []
    for name, split in data.definitions(protocol, splits).items():
        entry = write.write_shards(
            folder,
            name,
            data.split(name, protocol),
            task=data.task,
            labels=data.labels,
            definition=split.definition,
            **options,
        )
        for shard in entry["shards"]:
            left_out += shard["left_out"]
    return left_out


def summarize(folder, verify=False):
    """Summarize a data set of records.

    Args:
        folder: path of the data set.
        verify: bool. If True, read all files and compare their checksums.

    Returns:
        dict of `task`, `labels` (their number), `splits` (dict from each name
        to a dict of counts and texts) and `damaged` (a str for each damaged
        shard).

    Raises:
        ValueError: the data set does not exist, or its index is damaged.
    """
    index = read_index(folder)
    splits, damaged = {}, {}
    for name in index["splits"]:
        reader = open_records(folder, name)
        splits[name] = {
            "records": reader.num_records,
            "samples": reader.num_samples,
            "shards": len(reader.shards),
            "bytes": sum(shard["bytes"] for shard in reader.files),
            "left_out": sum(len(shard["left_out"]) for shard in reader.files),
            "definition": reader.definition,
            "sources": dict(sorted(reader.sources.items())),
        }
        if verify:
            damaged |= reader.verify()
    return {
        "task": index["task"],
        "labels": len(index["labels"]),
        "splits": splits,
        "damaged": list(damaged.values()),
    }
