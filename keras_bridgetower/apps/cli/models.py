"""Opens the presets and pictures that a command names, checked early.

What can be wrong is looked at before Keras is imported, which takes seconds.
"""

import os
import pathlib
import typing
from typing import Annotated

import typer

from keras_bridgetower.apps.cli import frameworks
from keras_bridgetower.apps.cli import output
from keras_bridgetower.apps.cli.errors import UsageError
from keras_bridgetower.presets.table import DEFAULT_FAMILY
from keras_bridgetower.presets.table import PRESETS
from keras_bridgetower.presets.table import default_preset
from keras_bridgetower.presets.table import did_you_mean


def names_starting(incomplete):
    """The known presets that begin like this, for completion in a shell."""
    return [name for name in PRESETS if name.startswith(incomplete)]


def preset_option(default):
    """The type of an option `--preset` of a command."""
    return Annotated[
        str,
        typer.Option(
            "--preset",
            help="Name of a preset (`presets` lists them), folder of one, "
            "checkpoint, or handle such as hf://user/model.",
            autocompletion=names_starting,
            show_default=default,
        ),
    ]


# Inputs that a verb passes through the model at once.
ONE_BATCH = 32
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Picture = Annotated[
    pathlib.Path, typer.Argument(help="Picture file.", show_default=False)
]


class Asked(typing.NamedTuple):
    """A command that asks a model.

    Args:
        verb: str, the method of the task.
        task: str, name of the task's class.
        heads: tuple of str. One of them answers.
    """

    verb: str
    task: str
    heads: tuple

    @property
    def default(self):
        """The name of the preset that answers where nobody names one."""
        return default_preset(self.task)


def open_task(asked, preset, context, inputs=1):
    """The task of a preset.

    Args:
        asked: `Asked`.
        preset: str, as `from_preset` takes it.
        context: `typer.Context` of the command. Its object says whether
            frameworks may print.
        inputs: int, how many pictures, texts or pairs it is asked about.

    Raises:
        UsageError: no such preset, or one without the head.
        ValueError: as `from_preset`.
    """
    check_preset(preset, asked.heads)
    chosen = context.get_parameter_source("preset")
    if chosen.name == "DEFAULT" and not preset.startswith(DEFAULT_FAMILY):
        output.note(f"{preset} answers. It knows {PRESETS[preset].knows}.")
    with output.status(f"Loading {preset}"):
        package = frameworks.load(context.obj)
        task = getattr(package, asked.task).from_preset(preset)
    # A warning told of a random head, and no command answers by one.
    task.new_heads.check(asked.verb, task.answering_heads)
    if inputs <= ONE_BATCH:
        from keras_bridgetower.backend import compiled

        compiled.run_once(task)
    return task


def check_preset(preset, heads=()):
    """Refuse what is no preset, or a known one without the heads.

    Args:
        preset: str, as `from_preset` takes it.
        heads: tuple of str, of which the preset must have one. Any will do
            if there are none.

    Raises:
        UsageError: it is neither known nor a handle nor a path that exists,
            or has none of the heads.
    """
    known = PRESETS.get(preset)
    if known is None and "://" not in preset and not os.path.exists(preset):
        raise UsageError(
            f"There is no preset {preset!r}. {did_you_mean(preset)}"
            "`keras-bridgetower "
            "presets` lists the names. A folder, a checkpoint file and a "
            "handle such as hf://user/model are presets too."
        )
    if known and heads and not set(heads) & set(known.heads):
        others = [n for n, p in PRESETS.items() if set(heads) & set(p.heads)]
        raise UsageError(
            f"The preset {preset} has the heads "
            f"{', '.join(known.heads) or 'none'}, and this command needs "
            f"{' or '.join(heads)}. Take one of: {', '.join(others)}."
        )


def open_pictures(*paths):
    """Pictures as Pillow images, decoded here and only once.

    Args:
        *paths: `pathlib.Path`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no picture, a damaged one, or one with too many pixels.
    """
    for path in paths:
        check_is_file(path)
    from keras_bridgetower.preprocessing.images import open_image

    return [open_image(path, "picture") for path in paths]


def check_is_file(path):
    """Refuse a path that leads to nothing, or to a folder."""
    if not path.exists():
        raise FileNotFoundError(2, "No such file", str(path))
    if path.is_dir():
        raise UsageError(
            f"A picture must be a file. Received: the folder {str(path)!r}"
        )
