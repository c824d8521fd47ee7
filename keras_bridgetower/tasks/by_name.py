"""Finds task classes and their verbs by name, and opens presets as them."""

import functools
import operator

from keras_bridgetower import startup
from keras_bridgetower.checks import check_choice
from keras_bridgetower.models import head_table
from keras_bridgetower.presets import registry
from keras_bridgetower.presets.table import sharing
from keras_bridgetower.presets.weights_file import TASK
from keras_bridgetower.tasks import from_preset
from keras_bridgetower.tasks.task import BridgeTowerTask


def task_classes():
    """Return every task class with a name of its own, yours included.

    Returns:
        dict from `task_name` to class.
    """
    startup.import_own_modules()
    return {
        cls.task_name: cls
        for cls in _subclasses(BridgeTowerTask)
        if vars(cls).get("task_name")
    }


def verbs():
    """Return the verbs of all tasks.

    Returns:
        dict from the name of a verb to a pair of task class and `Verb`.
    """
    return {
        verb.name: (cls, verb)
        for cls in task_classes().values()
        for verb in cls.verbs
    }


def saved_heads(preset):
    """Return the names of the heads of a preset, a tuple of str."""
    startup.import_own_modules()
    return tuple(head_table.saved_heads(registry.open_preset(preset)))


def open_verb(preset, name):
    """Open a preset as the task of a verb, with trained heads.

    Args:
        preset: as the `from_preset` of a task takes it.
        name: str, the name of a verb.

    Raises:
        ValueError: no such verb or preset, or a preset without the head.
    """
    known = verbs()
    check_choice("task", name, tuple(known))
    return _trained(known[name][0], preset, name)


def open_task(preset, name=None, purpose="export"):
    """Open a preset as a task, with trained heads.

    Args:
        preset: as the `from_preset` of a task takes it.
        name: str, the `task_name` of a class; by default that of the
            preset's name, or of the class that was saved.
        purpose: str, the use of the heads, for the error.

    Raises:
        ValueError: no such preset or task, a preset that names no task, or
            one without the heads.
    """
    classes = task_classes()
    folder = registry.open_preset(preset)
    saved = folder.json(TASK, {}).get("class_name")
    if named := sharing(preset):
        (saved,) = named.tasks
    known = {cls.__name__: key for key, cls in classes.items()}
    if name is None and saved not in known:
        raise ValueError(
            f"`task` must be one of {list(classes)}: the preset names no "
            f"task. Received: task=None, preset={str(preset)!r}"
        )
    name = name or known[saved]
    check_choice("task", name, tuple(classes))
    return _trained(classes[name], folder, purpose)


def task_around(backbone, cls, folder, saved, values, reading=None):
    """Open a task of a preset around the backbone of another task.

    Args:
        backbone: the backbone.
        cls: the task class.
        folder: `PresetFolder`.
        saved: dict, the heads of the preset.
        values: dict, constructor values of the task.
        reading: dict of `image_size`, `image_mode` and `sequence_length`; the
            preset's own where it has none.
    """
    names = ("image_size", "image_mode", "sequence_length")
    reading = {name: (reading or {}).get(name) for name in names}
    preprocessor = from_preset.build_preprocessor(
        cls, folder, reading, values, backbone
    )
    awaited = saved, folder.room_for_heads()
    task = cls(backbone, preprocessor, awaited=awaited, **values)
    from_preset.load_heads(task, folder, saved, random_heads=False)
    return task


def _trained(cls, preset, purpose):
    task = cls.from_preset(preset)
    task.new_heads.check(purpose, task.answering_heads)
    return task


def _subclasses(cls):
    below = map(_subclasses, cls.__subclasses__())
    return functools.reduce(operator.iadd, below, cls.__subclasses__())
