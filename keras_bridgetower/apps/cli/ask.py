"""Commands that ask a model about pictures and texts, or about many rows."""

import collections
import os
import pathlib
import sys

import typer

from keras_bridgetower.apps.cli import frameworks
from keras_bridgetower.apps.cli import models
from keras_bridgetower.apps.cli import output
from keras_bridgetower.apps.cli.errors import UsageError
from keras_bridgetower.apps.cli.models import DEFAULTS
from keras_bridgetower.apps.cli.models import AsJson
from keras_bridgetower.apps.cli.models import Picture
from keras_bridgetower.apps.cli.models import argument
from keras_bridgetower.apps.cli.models import option
from keras_bridgetower.apps.cli.models import preset_option
from keras_bridgetower.presets.verbs import ANSWER
from keras_bridgetower.presets.verbs import BUILT_IN
from keras_bridgetower.presets.verbs import COMPARE
from keras_bridgetower.presets.verbs import EMBED_IMAGES
from keras_bridgetower.presets.verbs import ENTAIL
from keras_bridgetower.presets.verbs import FILL
from keras_bridgetower.presets.verbs import SCORE
from keras_bridgetower.presets.verbs import named
from keras_bridgetower.startup import OWN_MODULES

TopK = option(int, "How many to print.", min=1)
# Numbers of a vector that a terminal shows.
SHOWN = 4


def _asked(context, verb, preset, given, top_k=1):
    """Ask a task about one row.

    Args:
        context: `typer.Context`.
        verb: `Verb`.
        preset: str.
        given: dict from the command's name of each input of the verb to a
            path of a picture or a text, pictures first.
        top_k: int.

    Returns:
        The start of what `--json` prints, and the results of `Verb.run`.
    """
    paths = [x for x in given.values() if isinstance(x, pathlib.Path)]
    texts = [x for x in given.values() if x not in paths]
    inputs = [*models.open_pictures(*paths), *texts]
    task = models.open_task(verb, preset, context)
    columns = {
        name: [one] for name, one in zip(verb.inputs, inputs, strict=True)
    }
    [found] = verb.run(task, columns, top_k)
    value = {name: str(one) for name, one in given.items()}
    return {**value, "preset": preset}, found


def ask(
    context: typer.Context,
    picture: Picture,
    question: argument(str, "Question about the picture."),
    preset: preset_option() = DEFAULTS[ANSWER.name],
    top_k: TopK = 1,
    as_json: AsJson = False,
):
    """Answer a question about a picture.

    Prints the best answers and their scores, from 0 to 1.
    """
    given = {"picture": picture, "question": question}
    value, found = _asked(context, ANSWER, preset, given, top_k)
    rows = found["answers"]
    value["answers"] = named(ANSWER.results["answers"], rows)
    output.show(as_json, value, ("answer", "score"), rows)


def fill(
    context: typer.Context,
    picture: Picture,
    text: argument(str, "Text about the picture, with <mask> in it."),
    preset: preset_option() = DEFAULTS[FILL.name],
    top_k: TopK = 3,
    as_json: AsJson = False,
):
    """Fill each <mask> of a text by looking at a picture.

    Prints the best tokens of each <mask> and their probabilities, then the
    text with the best ones.
    """
    given = {"picture": picture, "text": text}
    value, found = _asked(context, FILL, preset, given, top_k)
    masks = named(FILL.results["masks"], found["masks"])
    value |= {"masks": masks, "filled": found["filled"]}
    rows = [
        (f"mask {number}", token.strip(), share)
        for number, tokens in enumerate(found["masks"], 1)
        for token, share in tokens
    ]
    rows.append(("text", found["filled"], None))
    output.show(as_json, value, ("where", "token", "probability"), rows)


def entail(
    context: typer.Context,
    picture: Picture,
    hypothesis: argument(str, "Sentence that may be true of the picture."),
    preset: preset_option() = DEFAULTS[ENTAIL.name],
    as_json: AsJson = False,
):
    """Say if a picture supports a sentence, contradicts it, or neither.

    Prints the label and the probabilities of all labels. The default preset
    was trained on pictures of one colored shape.
    """
    given = {"picture": picture, "hypothesis": hypothesis}
    value, found = _asked(context, ENTAIL, preset, given)
    shares = found["probabilities"].items()
    rows = sorted(shares, key=lambda pair: -pair[1])
    output.show(as_json, value | found, ("label", "probability"), rows)


def compare(
    context: typer.Context,
    left: Picture,
    right: Picture,
    statement: argument(str, "Statement about the two pictures."),
    preset: preset_option() = DEFAULTS[COMPARE.name],
    as_json: AsJson = False,
):
    """Say if a statement about two pictures is true.

    Prints the judgment and its probability. The default preset was trained on
    pictures of one colored shape.
    """
    given = {"left": left, "right": right, "statement": statement}
    value, found = _asked(context, COMPARE, preset, given)
    rows = [("true" if found["true"] else "false", found["probability"])]
    columns = ("statement is", "probability")
    output.show(as_json, value | found, columns, rows)


def match(
    context: typer.Context,
    picture: Picture,
    texts: argument(list[str], "Texts that may fit the picture."),
    preset: preset_option() = DEFAULTS[SCORE.name],
    as_json: AsJson = False,
):
    """Score how well each text fits a picture.

    A score is the logit of "match": higher is better.
    """
    (image,) = models.open_pictures(picture)
    task = models.open_task(SCORE, preset, context, len(texts))
    scores = task.score(image, list(texts)).tolist()
    rows = list(zip(texts, scores, strict=True))
    matches = [{"text": text, "score": score} for text, score in rows]
    value = {"picture": str(picture), "preset": preset, "matches": matches}
    output.show(as_json, value, ("text", "score"), rows)


def rank(
    context: typer.Context,
    text: argument(str, "Text to look for."),
    pictures: argument(
        list[pathlib.Path], "Picture files, and folders of them."
    ),
    preset: preset_option() = DEFAULTS[SCORE.name],
    top_k: option(int, "How many pictures to print.", min=1) = 10,
    batch_size: models.batch_option("Pictures") = 32,
    as_json: AsJson = False,
):
    """Order pictures by how well they fit a text, the best first.

    Pictures that cannot be read are left out with a warning.
    """
    paths = _picture_paths(pictures)
    task = models.open_task(SCORE, preset, context, len(paths))
    # Otherwise each picture would get the error of the text.
    task.check_request([text])
    with output.status(f"Ranking {len(paths)} pictures"):
        results = _scored(task, text, paths, batch_size)
    bad = [row for row in results if "error" in row]
    for row in bad:
        output.warn(f"{row['image']} is left out: {row['error']}")
    if len(bad) == len(results):
        raise _none_readable(pictures)
    good = [(r["image"], r["score"]) for r in results if "error" not in r]
    best = sorted(good, key=lambda pair: -pair[1])[:top_k]
    value = {
        "text": text,
        "preset": preset,
        "searched": len(good),
        "pictures": [{"picture": path, "score": s} for path, s in best],
    }
    output.show(as_json, value, ("picture", "score"), best)


def embed(
    context: typer.Context,
    texts: option(
        list[str] | None, "Text to embed. May be given again.", "--text"
    ) = None,
    images: option(
        list[pathlib.Path] | None,
        "Picture to embed. May be given again.",
        "--image",
    ) = None,
    preset: preset_option() = DEFAULTS[EMBED_IMAGES.name],
    as_json: AsJson = False,
):
    """Embed texts or pictures in one space, for search.

    Prints a vector of length 1 for each `--text` or `--image`, in order. As
    many of both are embedded as pairs, if the preset has a head for pairs.
    """
    texts, images = texts or None, images or None
    if not (texts or images):
        raise UsageError("Give `--text` or `--image`, once or more.")
    if texts and images and len(texts) != len(images):
        raise UsageError(
            "`--text` and `--image` together are pairs: give as many of both. "
            f"Received: {len(texts)} texts, {len(images)} pictures"
        )
    opened = models.open_pictures(*images) if images else None
    count = len(texts or images)
    task = models.open_task(EMBED_IMAGES, preset, context, count)
    embeddings = [
        {"embedding": vector.tolist()}
        for vector in task.embed(images=opened, texts=texts)
    ]
    for name, values in {"image": images, "text": texts}.items():
        for i, one in enumerate(values or ()):
            embeddings[i] = {name: str(one), **embeddings[i]}
    value = {"preset": preset, "embeddings": embeddings}
    columns = ("text", "image", "numbers", "the first of them")
    output.show(as_json, value, columns, _vector_rows(embeddings))


def _vector_rows(embeddings):
    """Return a row for each vector; for a pipe all its numbers, for NumPy."""
    if not sys.stdout.isatty():
        return [[f"{x:.9g}" for x in row["embedding"]] for row in embeddings]
    return [
        (
            row.get("text"),
            row.get("image"),
            len(row["embedding"]),
            ", ".join(f"{x:.3f}" for x in row["embedding"][:SHOWN]),
        )
        for row in embeddings
    ]


def _picture_paths(sources):
    """List the pictures of files and folders, each folder in order."""
    from keras_bridgetower.apps.predict.rows import picture_files

    paths = []
    for source in sources:
        if source.is_dir():
            found = picture_files(source, collections.Counter())
            paths += [source / name for name in found]
        else:
            models.check_is_file(source)
            paths.append(source)
    if not paths:
        raise _none_readable(sources)
    return paths


def _scored(task, text, paths, batch_size):
    """Return the results of `predict` for each picture with the text."""
    from keras_bridgetower.apps.predict.batches import open_picture
    from keras_bridgetower.apps.predict.batches import run_rows
    from keras_bridgetower.apps.predict.rows import Row
    from keras_bridgetower.preprocessing.geometry import as_square

    converter = task.needed_preprocessor().image_converter

    def read(row, column):
        return as_square(open_picture(row, column), converter, column)

    rows = [
        Row(number, {"image": str(path), "text": text}, pathlib.Path())
        for number, path in enumerate(paths)
    ]
    batches = run_rows(task, SCORE, rows, 1, batch_size, read)
    return [result for batch in batches for result in batch]


def _none_readable(sources):
    return UsageError(
        "There must be a picture that can be read. Received: none in "
        + ", ".join(map(str, sources))
    )


# The heading of the options that need Apache Beam.
MANY = "Many machines"


def predict(
    context: typer.Context,
    preset: models.preset_argument("Preset of the task."),
    task: argument(
        str,
        f"One of {', '.join(BUILT_IN)}; or one of your own.",
        autocompletion=lambda: tuple(BUILT_IN),
    ),
    source: argument(
        pathlib.Path, "Folder of pictures, or table (.csv, .jsonl)."
    ),
    out: argument(str, "JSONL file, new or begun; with `--runner` a folder."),
    text: option(
        list[str] | None, "Text for every picture. May be given again."
    ) = None,
    top_k: option(int, "Answers of a row, best first.", min=1) = 1,
    batch_size: models.batch_option("Rows") = 32,
    outside: option(bool, "Let a table name pictures anywhere.") = False,
    runner: option(
        str | None,
        "Run on many machines, by this runner of Apache Beam.",
        rich_help_panel=MANY,
    ) = None,
    options: option(
        list[str] | None,
        "Option of the pipeline. May be given again.",
        "--set",
        metavar="KEY=VALUE",
        rich_help_panel=MANY,
    ) = None,
    pictures: option(
        str | None,
        "Folder of the pictures as the workers see it.",
        rich_help_panel=MANY,
    ) = None,
    shard_rows: option(
        int | None,
        "Rows of a file of results. [default: 2000]",
        min=1,
        rich_help_panel=MANY,
    ) = None,
    as_json: AsJson = False,
):
    """Run a task over a folder of pictures or a table.

    Writes a line of JSON for each row. If it is interrupted, the same command
    continues. A row that cannot be read gets a line with its error.
    """
    values = dict(options=options, pictures=pictures, shard_rows=shard_rows)
    values = {name: value for name, value in values.items() if value}
    if values and not runner:
        raise UsageError(
            "`--set`, `--pictures` and `--shard-rows` need `--runner`."
        )
    # The names of your own tasks are known once their modules are imported.
    if task not in BUILT_IN and not os.environ.get(OWN_MODULES):
        raise UsageError(
            f"TASK must be one of {', '.join(BUILT_IN)}; set {OWN_MODULES} to "
            f"the module of your own task. Received: {task!r}"
        )
    models.check_preset(preset)
    rows = (preset, task, source, out, text or (), top_k, batch_size, outside)
    with output.progress("Predicting") as on_rows:
        frameworks.load(context.obj)
        from keras_bridgetower.apps.predict import on_beam
        from keras_bridgetower.apps.predict import run
        from keras_bridgetower.apps.predict.run import UnfitSetting

        try:
            if runner:
                with frameworks.quiet_processes(context.obj):
                    found = on_beam.run(*rows, runner=runner, **values)
                bad, passed_over = found.bad, found.passed_over
            else:
                bad, passed_over = run.run(*rows, on_rows)
        except UnfitSetting as error:
            raise UsageError(str(error)) from error
    value = {
        "out": out,
        "unreadable_rows": bad,
        "passed_over": dict(passed_over),
    }
    lines = [(line,) for line in run.report(bad, passed_over)]
    output.show(as_json, value, ("result",), lines)
