"""The data sets by name."""

from keras_bridgetower.data.readers import arrow
from keras_bridgetower.data.readers.captions import COCOCaptions
from keras_bridgetower.data.readers.captions import Flickr30K
from keras_bridgetower.data.readers.captions import VisualGenome
from keras_bridgetower.data.readers.cifar import Cifar10
from keras_bridgetower.data.readers.cifar import Cifar100
from keras_bridgetower.data.readers.glue import GLUE
from keras_bridgetower.data.readers.nlvr2 import NLVR2
from keras_bridgetower.data.readers.own import OwnData
from keras_bridgetower.data.readers.snli_ve import SNLIVE
from keras_bridgetower.data.readers.vg_qa import VGQA
from keras_bridgetower.data.readers.vqa import VQAv2
from keras_bridgetower.data.readers.web import CC3M
from keras_bridgetower.data.readers.web import SBU
from keras_bridgetower.data.readers.web import CC3MAnnotated
from keras_bridgetower.data.readers.web import SBUAnnotated

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
    r"""A data set in its authors' files.

    Args:
        name: str, a key of `DATASETS`.
        root: path of the folder that holds the files.
        **options: further arguments of that data set's class.

    Returns:
        `readers.base.DataSet`.

    Raises:
        ValueError: no such data set, no such folder, options it lacks.

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
    try:
        return DATASETS[name](root, **options)
    except TypeError as error:
        raise ValueError(
            f"The options of {name!r} must be those of "
            f"{DATASETS[name].__name__} ({error}). Received: "
            f"options={options}"
        ) from error
