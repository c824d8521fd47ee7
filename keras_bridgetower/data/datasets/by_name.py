"""Opens the original files of a data set by the name of the data set."""

import inspect

from keras_bridgetower.data.datasets.arrow import datasets
from keras_bridgetower.data.datasets.captions import COCOCaptions
from keras_bridgetower.data.datasets.captions import Flickr30K
from keras_bridgetower.data.datasets.captions import VisualGenome
from keras_bridgetower.data.datasets.cifar import Cifar10
from keras_bridgetower.data.datasets.cifar import Cifar100
from keras_bridgetower.data.datasets.glue import GLUE
from keras_bridgetower.data.datasets.nlvr2 import NLVR2
from keras_bridgetower.data.datasets.own.dataset import OwnData
from keras_bridgetower.data.datasets.snli_ve import SNLIVE
from keras_bridgetower.data.datasets.vg_qa import VGQA
from keras_bridgetower.data.datasets.vqa import VQAv2
from keras_bridgetower.data.datasets.web import CC3M
from keras_bridgetower.data.datasets.web import SBU
from keras_bridgetower.data.datasets.web import CC3MAnnotated
from keras_bridgetower.data.datasets.web import SBUAnnotated

DATASETS = {
    "coco": COCOCaptions,
    "flickr30k": Flickr30K,
    "visual_genome": VisualGenome,
    "cc3m": CC3M,
    "sbu": SBU,
    "vqav2": VQAv2,
    "vgqa": VGQA,
    "snli_ve": SNLIVE,
    "nlvr2": NLVR2,
    "cifar10": Cifar10,
    "cifar100": Cifar100,
    "glue": GLUE,
    "own": OwnData,
    "cc3m_annot": CC3MAnnotated,
    "sbu_annot": SBUAnnotated,
    "arrow_coco": datasets.ArrowCOCO,
    "arrow_flickr30k": datasets.ArrowFlickr30K,
    "arrow_visual_genome": datasets.ArrowVisualGenome,
    "arrow_cc3m": datasets.ArrowCC3M,
    "arrow_sbu": datasets.ArrowSBU,
    "arrow_vqav2": datasets.ArrowVQAv2,
    "arrow_vgqa": datasets.ArrowVGQA,
    "arrow_snli_ve": datasets.ArrowSNLIVE,
    "arrow_nlvr2": datasets.ArrowNLVR2,
}


def open_dataset(name, root, **options):
    r"""Open the original files of a data set.

    Args:
        name: str, a key of `DATASETS`.
        root: path of the folder with the files.
        **options: further arguments of the data set's class.

    Returns:
        `DataSet`.

    Raises:
        ValueError: there is no such data set or folder, or the data set does
            not have such options.

    Example:

    ```python
    with open("train.csv", "w") as file:
        file.write("text,label\nIt rained.,wet\nThe sun shone.,dry\n")
    data = open_dataset("own", ".")
    data.task, data.labels  # "text_classification", ["dry", "wet"]
    print(*data.check())
    ```
    """
    if name not in DATASETS:
        raise ValueError(
            f"`name` must be one of {sorted(DATASETS)}. Received: name={name!r}"
        )
    cls = DATASETS[name]
    try:
        inspect.signature(cls).bind(root, **options)
    except TypeError as error:
        raise ValueError(
            f"The options of {name!r} must be those of "
            f"{cls.__name__} ({error}). Received: "
            f"options={options}"
        ) from error
    return cls(root, **options)
