"""Options that commands share, and the presets that they open.

Arguments are checked before Keras is imported, which takes seconds.
"""

import functools
import os
import pathlib
import sys
import traceback
from typing import Annotated

import typer

from keras_bridgetower.apps.cli import frameworks
from keras_bridgetower.apps.cli import output
from keras_bridgetower.apps.cli.errors import UsageError
from keras_bridgetower.presets import table
from keras_bridgetower.presets.verbs import BUILT_IN

# The preset that a command opens by default, by the name of its verb.
DEFAULTS = {
    verb.name: next(
        iter(table.shipped_with(verb.heads)), f"{table.default_family()}vqa"
    )
    for verb in BUILT_IN.values()
}
# The default presets of one family, for a command that opens several.
FAMILY = tuple(
    name
    for name in dict.fromkeys(DEFAULTS.values())
    if name.startswith(table.default_family())
)
# The most inputs for which a model runs eagerly, if that is faster.
ONE_BATCH = 32


def names_starting(incomplete):
    """List the known presets that start like this, for shell completion."""
    return [name for name in table.PRESETS if name.startswith(incomplete)]


# Types of parameters that several commands have.
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Picture = Annotated[pathlib.Path, typer.Argument(help="Picture file.")]
Count = Annotated[int, typer.Option(min=1)]
CountOrNone = Annotated[int | None, typer.Option(min=1)]
Changes = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="FIELD=VALUE")
]
KeyValues = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE")
]
Splits = Annotated[list[str] | None, typer.Option("--split", "--splits")]
PRESET_NAMES = typer.Argument(autocompletion=names_starting)
PresetArgument = Annotated[str, PRESET_NAMES]
Preset = Annotated[
    str | None,
    typer.Option(
        help="Name of a preset (`presets` lists them), folder of one, "
        "checkpoint, or handle such as hf://user/model.",
        autocompletion=names_starting,
    ),
]


def open_task(verb, preset, context, inputs=1, pictures=(), texts=()):
    """Open a preset as the task of a verb.

    Args:
        verb: `Verb`.
        preset: str, as `from_preset` takes it.
        context: `typer.Context` of the command. Its `obj` is `debug`.
        inputs: int, number of pictures, texts or pairs.
        pictures: paths that are checked before Keras is loaded.
        texts: list of str that are checked before.

    Raises:
        UsageError: no such preset.
        ValueError: a picture that cannot be read, or an empty text; as
            `from_preset`; or a preset without the head.
    """
    check_preset(preset)
    chosen = context.get_parameter_source("preset")
    if chosen.name == "DEFAULT" and not preset.startswith(table.FAMILIES[0]):
        context.call_on_close(functools.partial(_note_default, preset))
    from keras_bridgetower.apps import exported

    @functools.cache
    def with_keras():
        from keras_bridgetower.preprocessing.images import open_image
        from keras_bridgetower.preprocessing.texts import checked_texts

        for path in pictures:
            if not os.path.exists(path):
                raise ValueError(f"There is no file {str(path)!r}.")
            open_image(path, "picture")
        checked_texts(list(texts), "texts")
        return _open(verb, preset, context, inputs)

    task = exported.available(preset, verb.name)
    if task:
        return Quick(task, with_keras, debug=context.obj)
    context.call_on_close(functools.partial(_prepare, preset, verb.name))
    return with_keras()


def _open(verb, preset, context, inputs):
    with output.progress(f"Loading {preset}"):
        frameworks.load(context.obj)
        from keras_bridgetower.backend import compiled
        from keras_bridgetower.tasks import by_name

        task = by_name.open_verb(preset, verb.name)
    if inputs <= ONE_BATCH:
        compiled.run_once(task)
    return task


class Quick:
    """An exported task, which calls Keras for anything that it cannot do.

    Args:
        exported: `ExportedTask`.
        with_keras: callable that returns the task of Keras.
        debug: bool, True to print why Keras is needed.
    """

    def __init__(self, exported, with_keras, debug=False):
        self._exported, self._with_keras = exported, with_keras
        self._debug = debug

    def run(self, by_exported, by_keras):
        """Call a function of the exported task, else of the Keras task."""
        try:
            return by_exported(self._exported)
        except Exception:
            if self._debug:
                traceback.print_exc()
            return by_keras(self._with_keras())

    def __getattr__(self, name):
        def method(*args, **kwargs):
            def run(task):
                return getattr(task, name)(*args, **kwargs)

            return self.run(run, run)

        return method


def _prepare(preset, verb):
    """Export a preset for the next call, unless this one failed."""
    from keras_bridgetower.apps import exported

    if sys.exc_info()[0] is None and (advice := exported.prepare(preset, verb)):
        output.note(advice)


def _note_default(preset):
    """Name the default preset after its results, but not after errors."""
    if sys.exc_info()[0] is not None:
        return
    note = f"Used {preset}, which was trained on {table.PRESETS[preset].knows}."
    command = table.not_installed().get(table.FAMILIES[0])
    if command and preset.startswith(table.default_family()):
        note += f" For photographs, in a clone: `{command}`."
    output.note(note)


def check_preset(preset):
    """Raise UsageError for an unknown preset."""
    known = preset in table.PRESETS or "://" in preset
    if not (known or os.path.exists(preset)):
        raise UsageError(
            f"There is no preset {preset!r}. {table.did_you_mean(preset)}"
            "`keras-bridgetower presets` lists the names."
        )
