"""The command `keras-bridgetower`: its subcommands and exit codes."""

import contextlib
import os
import sys
import traceback

import typer

from keras_bridgetower.apps.cli import ask
from keras_bridgetower.apps.cli import data
from keras_bridgetower.apps.cli import errors
from keras_bridgetower.apps.cli import frameworks
from keras_bridgetower.apps.cli import output
from keras_bridgetower.apps.cli import search
from keras_bridgetower.apps.cli import serve
from keras_bridgetower.apps.cli import weights
from keras_bridgetower.apps.cli.models import option
from keras_bridgetower.startup import COMMAND
from keras_bridgetower.version import __version__

DEBUG = "--debug"
# Commands by their heading in `--help`. A command is a function of its name,
# a group of commands is a dict.
COMMANDS = {
    "Ask a model": (
        ask.ask,
        ask.match,
        ask.rank,
        ask.fill,
        ask.embed,
        ask.entail,
        ask.compare,
        ask.predict,
        serve.demo,
        serve.serve,
    ),
    "Search your pictures": (
        {
            "search": (
                *(search.index, search.query, search.info),
                *(search.remove, search.prune),
            )
        },
    ),
    "Data and training": (
        {
            "data": (
                *(data.check, data.build, data.stats, data.show),
                data.filter,
            )
        },
        data.train,
        data.evaluate,
    ),
    "Presets and weights": (
        weights.presets,
        weights.convert,
        weights.export,
        weights.quantize,
        weights.doctor,
    ),
}
GROUPS = {
    "data": "Build data sets from their original files, show and filter them.",
    "search": "Index your own pictures, and find them.",
}


def main(words=None):
    """Run the command line.

    Args:
        words: list of str, the arguments. By default those of the process.

    Returns:
        int, the exit code: 0 if all went well, 1 if the work failed, 2 for
        wrong usage.
    """
    words, debug = _without_debug(sys.argv[1:] if words is None else words)
    with frameworks.quiet(output.warn, debug):
        try:
            command = typer.main.get_command(application(debug))
            code = command.main(
                args=words, prog_name=COMMAND, standalone_mode=False
            )
            sys.stdout.flush()
            return code if isinstance(code, int) else 0
        except BrokenPipeError:
            # The reader closed the pipe. Stop Python from reporting it at exit.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return errors.FAILED
        except (Exception, KeyboardInterrupt) as error:
            if debug:
                traceback.print_exc()
            if line := errors.line(error, COMMAND):
                print(line, file=sys.stderr)
            return errors.exit_code(error)


def application(debug=False):
    """Build the commands as a `typer.Typer`.

    Args:
        debug: bool, True if frameworks may print, as with `--debug`.
    """
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"], "obj": debug},
    )
    app.callback()(options)
    for heading, commands in COMMANDS.items():
        for command in commands:
            if callable(command):
                app.command(rich_help_panel=heading)(command)
                continue
            for name, functions in command.items():
                group = typer.Typer(no_args_is_help=True)
                for function in functions:
                    group.command()(function)
                app.add_typer(
                    group,
                    name=name,
                    help=GROUPS[name],
                    rich_help_panel=heading,
                )
    return app


def _print_version(asked: bool):
    if asked:
        print(__version__)
        raise typer.Exit


def options(
    version: option(
        bool,
        "Print the version and exit.",
        "--version",
        callback=_print_version,
        is_eager=True,
    ) = False,
    debug: option(
        bool, "Show tracebacks and the output of frameworks.", DEBUG
    ) = False,
):
    """BridgeTower vision-language models: ask, match, train, convert.

    Pictures are JPEG, PNG, GIF, WebP, BMP, TIFF or PPM files. Models are
    presets: a name that `presets` lists, a folder, or a handle such as
    hf://user/model. The small presets run offline; they were trained on emoji
    or colored shapes, not on photographs.
    """


def _without_debug(words):
    """Remove `--debug` from the arguments, and return True if it was there."""
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word != DEBUG] + words[end:]
    return kept, len(kept) < len(words)
