"""Opens the original files of a data set by the name of the data set."""

import inspect

from keras_bridgetower.checks import check_choice
from keras_bridgetower.data.datasets import arrow
from keras_bridgetower.data.datasets import captions
from keras_bridgetower.data.datasets import cifar
from keras_bridgetower.data.datasets import statements
from keras_bridgetower.data.datasets import vqa
from keras_bridgetower.data.datasets.glue import GLUE
from keras_bridgetower.data.datasets.own_data import OwnData

DATASETS = {
    "coco": captions.COCOCaptions,
    "flickr30k": captions.Flickr30K,
    "visual_genome": captions.VisualGenome,
    "cc3m": captions.CC3M,
    "sbu": captions.SBU,
    "vqav2": vqa.VQAv2,
    "vgqa": vqa.VGQA,
    "snli_ve": statements.SNLIVE,
    "nlvr2": statements.NLVR2,
    "cifar10": cifar.Cifar10,
    "cifar100": cifar.Cifar100,
    "glue": GLUE,
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
        inspect.signature(cls).bind(root, **options)
    except TypeError as error:
        raise ValueError(
            f"The options of {name!r} must be those of {cls.__name__} (`--set "
            f"KEY=VALUE` on the command line): {error}. Received: {options}"
        ) from error
    return cls(root, **options)
