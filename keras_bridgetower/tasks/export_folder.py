"""What stands beside an exported task: how pictures and texts are prepared."""

import json
import pathlib
import shutil

from keras_bridgetower.models.exporting import runtime

# What the task is, and the names of its classes.
DESCRIPTION = "export.json"
RUNNER = "run.py"


def write_companions(task, folder, chosen, part):
    """Write the preprocessor's files, and a program that runs the model.

    Args:
        task: the task. Without a preprocessor nothing but its description is
            written.
        folder: `pathlib.Path` of the folder with the exported model.
        chosen: `Format`.
        part: str, what was exported of the task, or None for all of it.
    """
    described = {
        "task": type(task).__name__,
        "part": part,
        # Of a part the outputs are no logits.
        "class_names": None if part else task.class_names,
    }
    text = json.dumps(described, indent=2)
    pathlib.Path(folder, DESCRIPTION).write_text(text + "\n")
    if task.preprocessor is None:
        return
    task.preprocessor.save_to_preset(str(folder))
    if chosen.runs:
        shutil.copyfile(runtime.__file__, pathlib.Path(folder, RUNNER))
