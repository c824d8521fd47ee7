"""Scores a preset on data sets of `data.build`, by the official protocols."""

from keras_bridgetower.data.records.format import read_index
from keras_bridgetower.data.records.read import open_records
from keras_bridgetower.distribution.distribute import distribute
from keras_bridgetower.tasks.fit import batch_checks
from keras_bridgetower.training import scores
from keras_bridgetower.training import train
from keras_bridgetower.training.recipes import paper
from keras_bridgetower.training.recipes import task_of_recipe

SCORED = ("validation", "test")


def run(preset, folder, splits=None, recipe=None, batch_size=32):
    """Score a preset on splits of a data set.

    Args:
        preset: as the `from_preset` of a task takes it.
        folder: path of the data set.
        splits: list of str. By default validation and test, where they are.
        recipe: str, name of the recipe whose evaluation is used: its task,
            image size, transform and shortlist. By default the first recipe
            of the data's task, with the image size of the preset.
        batch_size: int, samples of a forward pass.

    Returns:
        dict from the name of each split to a dict of its scores, or None for
        samples without labels.

    Raises:
        ValueError: no such split or recipe, records of another task, other
            classes than those of the preset, or a preset without the head.

    Example:

    ```python
    run("bridgetower_tiny_easy_vqa", "datasets/vqav2", ["validation"])
    ```
    """
    index = read_index(folder)
    there = list(index["splits"])
    splits = splits or [name for name in SCORED if name in there]
    if not splits or not set(splits) <= set(there):
        raise ValueError(
            "`splits` must be some of those of the data set: "
            f"{', '.join(there)}. Received: splits={list(splits)}"
        )
    chosen = _recipe(recipe, index["task"])
    cls, _ = task_of_recipe.TASKS[chosen.task]
    strategy = distribute("none")
    with strategy.scope():
        task = cls.from_preset(
            preset, image_size=chosen.image_size if recipe else None
        )
        task.new_heads.check("evaluate", task.answering_heads)
        batch_checks.check_classes(task, index["labels"])
        task.compile()
    chosen = chosen.replace(
        image_size=task.backbone.image_size,
        batch_size=batch_size,
        accumulation=1,
    )
    return {
        split: scores.of_split(
            *(task, chosen, open_records(folder, split), strategy), verbose=0
        )
        for split in splits
    }


def _recipe(name, task_of_records):
    """The recipe of a name, or the first of a task that is scored."""
    if name is not None:
        recipe = paper.get(name)
        if train.RECORD_TASKS.get(recipe.task) != task_of_records:
            raise ValueError(
                f"`recipe` must be of the records' task, {task_of_records!r}. "
                f"Received: recipe={name!r}, of {recipe.task}"
            )
        return recipe
    for recipe in paper.RECIPES.values():
        # Of captions a ranking is what is scored.
        if recipe.task != "Pretraining" and (
            train.RECORD_TASKS.get(recipe.task) == task_of_records
        ):
            return recipe
    raise ValueError(
        "The records must be of a task that a recipe trains: "
        f"{', '.join(sorted(set(train.RECORD_TASKS.values())))}. "
        f"Received: {task_of_records!r}"
    )
