"""Several tasks over one backbone, saved as one preset."""

from easy_world.training.tiny_training import pack

from keras_bridgetower.models.head_table import HeadSet
from keras_bridgetower.presets import registry
from keras_bridgetower.presets import weights_file


class Together:
    """Tasks that share a backbone, and what each learns of it.

    Args:
        *tasks: the first is what the preset opens as by itself.
    """

    def __init__(self, *tasks):
        self.tasks = tasks

    def save_to_preset(self, folder):
        """Write one preset that opens as each of the tasks."""
        first = self.tasks[0]
        first.save_to_preset(folder)
        heads, values = {}, {}
        for task in self.tasks:
            heads |= {name: task.heads[name] for name in task.heads}
            values |= task.head_values
        HeadSet(heads).save(folder / weights_file.TASK_WEIGHTS)
        registry.write_json(folder, registry.HEADS, values)
        pack(first.backbone, folder)
