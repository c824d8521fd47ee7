"""The task of a preset, by the name of the task or as the preset says."""

from keras_bridgetower.checks import check_choice
from keras_bridgetower.presets import registry
from keras_bridgetower.presets.table import sharing
from keras_bridgetower.presets.weights_file import TASK
from keras_bridgetower.tasks.contrastive import BridgeTowerContrastive
from keras_bridgetower.tasks.entailment import BridgeTowerEntailment
from keras_bridgetower.tasks.masked_lm import BridgeTowerMaskedLM
from keras_bridgetower.tasks.nlvr2 import BridgeTowerNLVR2
from keras_bridgetower.tasks.pretraining import BridgeTowerPretraining
from keras_bridgetower.tasks.retrieval import BridgeTowerRetrieval
from keras_bridgetower.tasks.unimodal import BridgeTowerImageClassifier
from keras_bridgetower.tasks.unimodal import BridgeTowerTextClassifier
from keras_bridgetower.tasks.unimodal import BridgeTowerTextRegressor
from keras_bridgetower.tasks.vqa import BridgeTowerVQA

TASKS = {
    "vqa": BridgeTowerVQA,
    "masked_lm": BridgeTowerMaskedLM,
    "retrieval": BridgeTowerRetrieval,
    "contrastive": BridgeTowerContrastive,
    "entailment": BridgeTowerEntailment,
    "nlvr2": BridgeTowerNLVR2,
    "pretraining": BridgeTowerPretraining,
    "image_classifier": BridgeTowerImageClassifier,
    "text_classifier": BridgeTowerTextClassifier,
    "text_regressor": BridgeTowerTextRegressor,
}


def open_task(preset, name=None, verb="export"):
    """The task of a preset, with trained heads.

    Args:
        preset: as the `from_preset` of a task takes it.
        name: str, a key of `TASKS`; by default the task that the name of the
            preset stands for, or that the preset was saved as.
        verb: str, what is done with the heads, for the error.

    Raises:
        ValueError: no such preset or task, a preset that names no task, or
            one without the heads.
    """
    folder = registry.open_preset(preset)
    saved = folder.json(TASK, {}).get("class_name")
    if named := sharing(preset):
        (saved,) = named.tasks
    known = {cls.__name__: key for key, cls in TASKS.items()}
    if name is None and saved not in known:
        raise ValueError(
            f"`task` must be one of {list(TASKS)}: the preset names no task. "
            f"Received: task=None, preset={str(preset)!r}"
        )
    name = name or known[saved]
    check_choice("task", name, tuple(TASKS))
    task = TASKS[name].from_preset(folder)
    task.new_heads.check(verb, task.answering_heads)
    return task
