"""Opens the presets and pictures that a command names.

Arguments are checked before Keras is imported, which takes seconds.
"""

import os
import pathlib
from typing import Annotated

import typer

from keras_bridgetower.apps.cli import frameworks
from keras_bridgetower.apps.cli import output
from keras_bridgetower.apps.cli.errors import UsageError
from keras_bridgetower.presets.table import DEFAULT_FAMILY
from keras_bridgetower.presets.table import PRESETS
from keras_bridgetower.presets.table import did_you_mean
from keras_bridgetower.presets.table import shipped_with
from keras_bridgetower.presets.verbs import BUILT_IN

# The preset that a command opens by default, by the name of its verb.
DEFAULTS = {
    verb.name: shipped[0]
    for verb in BUILT_IN.values()
    if (shipped := shipped_with(verb.heads))
}
# Inputs that pass through the model in one batch.
ONE_BATCH = 32


def names_starting(incomplete):
    """List the known presets that start like this, for shell completion."""
    return [name for name in PRESETS if name.startswith(incomplete)]


def option(kind, help, *names, **values):
    """Return the type of an option, as Typer reads it."""
    return Annotated[kind, typer.Option(*names, help=help, **values)]


def argument(kind, help, **values):
    """Return the type of an argument, as Typer reads it."""
    return Annotated[kind, typer.Argument(help=help, **values)]


def preset_option(default=True):
    """Return the type of the option `--preset`; `default` is for its help."""
    return option(
        str,
        "Name of a preset (`presets` lists them), folder of one, checkpoint, "
        "or handle such as hf://user/model.",
        "--preset",
        autocompletion=names_starting,
        show_default=default,
    )


def preset_argument(help):
    """Return the type of an argument that names a preset."""
    return argument(str, help, autocompletion=names_starting)


def batch_option(items):
    """Return the type of an option `--batch-size`."""
    return option(int, f"{items} per batch.", min=1)


AsJson = option(bool, "Print JSON.", "--json")
Picture = argument(pathlib.Path, "Picture file.", show_default=False)


def open_task(verb, preset, context, inputs=1):
    """Open a preset as the task of a verb.

    Args:
        verb: `Verb`.
        preset: str, as `from_preset` takes it.
        context: `typer.Context` of the command. Its object is True if
            frameworks may print.
        inputs: int, number of pictures, texts or pairs.

    Raises:
        UsageError: no such preset, or one without the head.
        ValueError: as `from_preset`.
    """
    check_preset(preset, verb.heads)
    chosen = context.get_parameter_source("preset")
    if chosen.name == "DEFAULT" and not preset.startswith(DEFAULT_FAMILY):
        output.note(
            f"Using {preset}, which was trained on {PRESETS[preset].knows}."
        )
    with output.status(f"Loading {preset}"):
        frameworks.load(context.obj)
        from keras_bridgetower.tasks import by_name

        cls, _ = by_name.verbs()[verb.name]
        task = cls.from_preset(preset)
    # A random head only warned; no command uses it.
    task.new_heads.check(verb.method, task.answering_heads)
    if inputs <= ONE_BATCH:
        from keras_bridgetower.backend import compiled

        compiled.run_once(task)
    return task


def check_preset(preset, heads=()):
    """Raise UsageError for an unknown preset, or one without the heads.

    Args:
        preset: str, as `from_preset` takes it.
        heads: tuple of str. A known preset must have one of them; empty for
            any preset.
    """
    known = PRESETS.get(preset)
    if known is None and "://" not in preset and not os.path.exists(preset):
        raise UsageError(
            f"There is no preset {preset!r}. {did_you_mean(preset)}"
            "`keras-bridgetower presets` lists the names. A folder, a "
            "checkpoint file and a handle such as hf://user/model are presets "
            "too."
        )
    if known and heads and not set(heads) & set(known.heads):
        others = [n for n, p in PRESETS.items() if set(heads) & set(p.heads)]
        raise UsageError(
            f"The preset {preset} has the heads "
            f"{', '.join(known.heads) or 'none'}, and this command needs "
            f"{' or '.join(heads)}. Take one of: {', '.join(others)}."
        )


def open_pictures(*paths):
    """Open and decode pictures as Pillow images.

    Args:
        *paths: `pathlib.Path`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a picture, a damaged one, or one with too many pixels.
    """
    for path in paths:
        check_is_file(path)
    from keras_bridgetower.preprocessing.images import open_image

    return [open_image(path, "picture") for path in paths]


def check_is_file(path):
    """Raise an error for a missing file or a folder."""
    if not path.exists():
        raise FileNotFoundError(2, "No such file", str(path))
    if path.is_dir():
        raise UsageError(
            f"A picture must be a file. Received: the folder {str(path)!r}"
        )
