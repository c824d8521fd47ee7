"""The command `keras-bridgetower`: its subcommands and exit codes."""

import copy
import functools
import inspect
import os
import re
import sys
import traceback
import typing

import typer

from keras_bridgetower.apps.cli import ask
from keras_bridgetower.apps.cli import data
from keras_bridgetower.apps.cli import errors
from keras_bridgetower.apps.cli import frameworks
from keras_bridgetower.apps.cli import output
from keras_bridgetower.apps.cli import search
from keras_bridgetower.apps.cli import serve
from keras_bridgetower.apps.cli import weights
from keras_bridgetower.startup import COMMAND
from keras_bridgetower.version import __version__

DEBUG = "--debug"
SEARCH = (search.index, search.query, search.info, search.remove, search.prune)
DATA = (data.check, data.build, data.stats)
# Commands by their heading in `--help`. A group of commands is its name, its
# help and the commands.
COMMANDS = {
    "Ask a model": (
        *(ask.ask, ask.match, ask.rank, ask.fill, ask.embed, ask.entail),
        *(ask.compare, ask.predict, serve.demo, serve.serve),
    ),
    "Search your pictures": (
        ("search", "Index your own pictures, and find them.", SEARCH),
    ),
    "Data and training": (
        ("data", "Build data sets and count them.", DATA),
        *(data.plan, data.train, data.train_reranker, data.evaluate),
    ),
    "Presets and weights": (
        *(weights.presets, weights.convert, weights.export),
        *(weights.quantize, weights.doctor),
    ),
}


def main(words=None):
    """Run the command line.

    Args:
        words: list of str, the arguments. By default those of the process.

    Returns:
        int, the exit code: 0 if all went well, 1 if the work failed, 2 for
        wrong usage.
    """
    words = sys.argv[1:] if words is None else words
    debug = DEBUG in words
    words = [word for word in words if word != DEBUG]
    if words[:2] == ["train", "reranker"]:
        words[:2] = ["train-reranker"]
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
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return errors.FAILED
        except (Exception, KeyboardInterrupt) as error:
            if debug:
                traceback.print_exc()
            if line := errors.line(error, COMMAND):
                print(line, file=sys.stderr)
            return errors.exit_code(error)


def application(debug=False):
    """Build the `typer.Typer`; with `debug` frameworks may print."""
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"], "obj": debug},
    )
    app.callback()(with_help(options))
    for heading, commands in COMMANDS.items():
        for command in commands:
            if callable(command):
                app.command(rich_help_panel=heading)(with_help(command))
                continue
            name, help, functions = command
            group = typer.Typer(no_args_is_help=True)
            for function in functions:
                group.command()(with_help(function))
            app.add_typer(group, name=name, help=help, rich_help_panel=heading)
    return app


def with_help(command):
    """Return a command with the help of its docstring, `Args:` included.

    A parameter without a default is an argument, another one an option, and a
    `bool` a flag without a value.
    """
    text, _, listed = inspect.getdoc(command).partition("\n\nArgs:\n")
    found = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", listed, re.MULTILINE)
    help = {name: " ".join(words.split()) for name, words in found}
    signature = inspect.signature(command)
    own = signature.parameters.values()

    @functools.wraps(command)
    def run(**values):
        return command(**values)

    run.__doc__ = text
    run.__signature__ = signature.replace(
        parameters=[_add_help(parameter, help) for parameter in own]
    )
    return run


def _add_help(parameter, help):
    kind, name = parameter.annotation, parameter.name
    if kind is typer.Context:
        return parameter
    if typing.get_origin(kind) is typing.Annotated:
        kind, info = typing.get_args(kind)
        info = copy.copy(info)
    elif parameter.default is parameter.empty:
        info = typer.Argument()
    elif kind is bool:
        info = typer.Option(f"--{name.replace('_', '-')}")
    else:
        info = typer.Option()
    info.help = help.get(name, info.help)
    return parameter.replace(annotation=typing.Annotated[kind, info])


def _print_version(asked: bool):
    if asked:
        print(__version__)
        raise typer.Exit


def options(
    version: typing.Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True)
    ] = False,
    debug: bool = False,
):
    """BridgeTower vision-language models: ask, match, train, convert.

    Pictures are JPEG, PNG, GIF, WebP, BMP, TIFF or PPM files. Models are
    presets: a name that `presets` lists, a folder, or a handle such as
    hf://user/model. Installed presets run offline; `presets` says what each
    was trained on.

    Args:
        version: Print the version and exit.
        debug: Show tracebacks and the output of frameworks.
    """
