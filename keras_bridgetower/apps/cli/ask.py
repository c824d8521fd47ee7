"""Commands that ask a model about pictures and texts, or about many rows."""

import collections
import pathlib
from typing import Annotated

import typer

from keras_bridgetower.apps.cli import frameworks
from keras_bridgetower.apps.cli import models
from keras_bridgetower.apps.cli import output
from keras_bridgetower.apps.cli.errors import UsageError
from keras_bridgetower.presets import verbs


def _run_verb(context, verb, preset, given, top_k=1):
    """Run a verb on one row.

    Args:
        context: `typer.Context`.
        verb: `Verb`.
        preset: str.
        given: dict from the command's name of each input of the verb to a
            path of a picture or a text, pictures first.
        top_k: int.

    Returns:
        The first values for `--json`, and the results of `Verb.run`.
    """
    value = {name: str(one) for name, one in given.items()}
    columns = zip(verb.inputs, ([one] for one in value.values()), strict=True)
    columns = dict(columns)
    pictures = [one for name, [one] in columns.items() if name != "text"]
    task = models.open_task(
        verb, preset, context, pictures=pictures, texts=columns["text"]
    )
    [found] = verb.run(task, columns, top_k)
    return {**value, "preset": preset}, found


def ask(
    context: typer.Context,
    picture: models.Picture,
    question: str,
    preset: models.Preset = models.DEFAULTS[verbs.ANSWER.name],
    top_k: models.Count = 1,
    as_json: models.AsJson = False,
):
    """Answer a question about a picture.

    Prints the best answers and their scores, from 0 to 1. Presets with a rule
    for it print percent, and whether they are sure or do not know.

    Args:
        question: Question about the picture.
        top_k: How many to print.
    """
    given = {"picture": picture, "question": question}
    value, found = _run_verb(context, verbs.ANSWER, preset, given, top_k)
    rows = found["answers"]
    found["answers"] = verbs.named(verbs.ANSWER.results["answers"], rows)
    if "known" not in found:
        output.show(as_json, value | found, ("answer", "score"), rows)
        return
    lines = [f"{output.cell(a)} ({100 * score:.1f} %)" for a, score in rows]
    if found["known"]:
        lines[0] = f"{lines[0][:-1]}, sure)"
    else:
        lines = [f"I do not know. Best guess: {'; '.join(lines)}"]
    output.show_lines(as_json, value | found, lines)
    if not (found["known"] or as_json):
        output.note(verbs.UNKNOWN)


def fill(
    context: typer.Context,
    picture: models.Picture,
    text: str,
    preset: models.Preset = models.DEFAULTS[verbs.FILL.name],
    top_k: models.Count = 3,
    as_json: models.AsJson = False,
):
    """Fill each <mask> of a text by looking at a picture.

    Prints the best tokens of each <mask> and their probabilities, then the
    text with the best ones.

    Args:
        text: Text about the picture, with <mask> in it.
        top_k: How many to print.
    """
    given = {"picture": picture, "text": text}
    value, found = _run_verb(context, verbs.FILL, preset, given, top_k)
    masks = verbs.named(verbs.FILL.results["masks"], found["masks"])
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
    picture: models.Picture,
    hypothesis: str,
    preset: models.Preset = models.DEFAULTS[verbs.ENTAIL.name],
    as_json: models.AsJson = False,
):
    """Say if a picture supports a sentence, contradicts it, or neither.

    Prints the label and the probabilities of all labels. The default preset
    was trained on pictures of one colored shape.

    Args:
        hypothesis: Sentence that may be true of the picture.
    """
    given = {"picture": picture, "hypothesis": hypothesis}
    value, found = _run_verb(context, verbs.ENTAIL, preset, given)
    shares = found["probabilities"].items()
    rows = sorted(shares, key=lambda pair: -pair[1])
    output.show(as_json, value | found, ("label", "probability"), rows)


def compare(
    context: typer.Context,
    left: models.Picture,
    right: models.Picture,
    statement: str,
    preset: models.Preset = models.DEFAULTS[verbs.COMPARE.name],
    as_json: models.AsJson = False,
):
    """Say if a statement about two pictures is true.

    Prints the judgment and its probability. The default preset was trained on
    pictures of one colored shape.

    Args:
        statement: Statement about the two pictures.
    """
    given = {"left": left, "right": right, "statement": statement}
    value, found = _run_verb(context, verbs.COMPARE, preset, given)
    rows = [("true" if found["true"] else "false", found["probability"])]
    columns = ("statement is", "probability")
    output.show(as_json, value | found, columns, rows)


def match(
    context: typer.Context,
    picture: models.Picture,
    texts: list[str],
    preset: models.Preset = models.DEFAULTS[verbs.SCORE.name],
    as_json: models.AsJson = False,
):
    """Say how probably each text fits a picture.

    Several texts may fit. JSON also has the scores that probabilities are of.

    Args:
        texts: Texts that may fit the picture.
    """
    task = models.open_task(
        verbs.SCORE, preset, context, len(texts), [picture], texts
    )
    logits = task.outputs_for("match", str(picture), list(texts))
    from keras_bridgetower.metrics import calibration

    scores = calibration.match_scores(logits)
    shares = calibration.match_shares(scores, ranked=logits.shape[-1] == 1)
    names = ("text", "probability", "score")
    rows = [*zip(texts, shares.tolist(), scores.tolist(), strict=True)]
    matches = verbs.named(names, rows)
    value = {"picture": str(picture), "preset": preset, "matches": matches}
    output.show(as_json, value, names[:2], [row[:2] for row in rows])


def rank(
    context: typer.Context,
    text: str,
    pictures: list[pathlib.Path],
    preset: models.Preset = models.DEFAULTS[verbs.SCORE.name],
    top_k: models.Count = 10,
    batch_size: models.Count = 32,
    as_json: models.AsJson = False,
):
    """Order pictures by how well they fit a text, the best first.

    A score is the logit of "match" minus that of no match. Pictures that
    cannot be read are left out with a warning.

    Args:
        text: Text to look for.
        pictures: Picture files, and folders of them.
        top_k: How many pictures to print.
        batch_size: Pictures per batch.
    """
    task = models.open_task(
        verbs.SCORE, preset, context, batch_size, texts=[text]
    )
    # Otherwise each picture would get the error of the text.
    task.check_request([text])
    from keras_bridgetower.apps.predict.rows import picture_files

    paths = []
    for source in pictures:
        names = [""]
        if source.is_dir():
            names = picture_files(source, collections.Counter())
        paths += [str(source / name) for name in names]
    with output.progress(f"Ranking {len(paths)} pictures"):
        found = _match_files(task, paths, text, batch_size)
    scores = dict(zip(paths, found, strict=True))
    for path, error in list(scores.items()):
        if isinstance(error, ValueError):
            output.warn(f"{path} is left out: {error}")
            del scores[path]
    if not scores:
        raise UsageError(
            "There must be a picture that can be read. Received: none in "
            + ", ".join(map(str, pictures))
        )
    best = sorted(scores.items(), key=lambda pair: -pair[1])[:top_k]
    value = {
        "text": text,
        "preset": preset,
        "searched": len(scores),
        "pictures": [{"picture": path, "score": s} for path, s in best],
    }
    output.show(as_json, value, ("picture", "score"), best)


def _match_files(task, *given):
    """Score picture files with a text."""

    def by_keras(task):
        from keras_bridgetower.apps.search.models import match_files

        return match_files(task, *given)

    if isinstance(task, models.Quick):
        return task.run(lambda exported: exported.match_files(*given), by_keras)
    return by_keras(task)


def embed(
    context: typer.Context,
    texts: Annotated[list[str] | None, typer.Option("--text")] = None,
    images: Annotated[
        list[pathlib.Path] | None, typer.Option("--image")
    ] = None,
    preset: models.Preset = models.DEFAULTS[verbs.EMBED_IMAGES.name],
    as_json: models.AsJson = False,
):
    """Embed texts or pictures in one space, for search.

    Prints a vector of length 1 for each `--text` or `--image`, in order. As
    many of both are embedded as pairs, if the preset has a head for pairs.

    Args:
        texts: Text to embed. May be given again.
        images: Picture to embed. May be given again.
    """
    columns = {"image": list(map(str, images or ())), "text": texts}
    columns = {name: values for name, values in columns.items() if values}
    if len(set(map(len, columns.values()))) != 1:
        raise UsageError(
            "Give `--text` or `--image`, once or more, or as many of both."
        )
    rows = [
        dict(zip(columns, row, strict=True))
        for row in zip(*columns.values(), strict=True)
    ]
    task = models.open_task(
        *(verbs.EMBED_IMAGES, preset, context, len(rows)),
        *(columns.get("image", ()), columns.get("text", ())),
    )
    given = {f"{name}s": values for name, values in columns.items()}
    for row, vector in zip(rows, task.embed(**given), strict=True):
        row["embedding"] = vector.tolist()
    value = {"preset": preset, "embeddings": rows}
    # For NumPy: a row of numbers for each.
    lines = ["\t".join(f"{x:.9g}" for x in row["embedding"]) for row in rows]
    output.show_lines(as_json, value, lines)


def predict(
    context: typer.Context,
    preset: models.PresetArgument,
    task: str,
    source: pathlib.Path,
    out: str,
    text: list[str] | None = None,
    top_k: models.Count = 1,
    batch_size: models.Count = 32,
    outside: bool = False,
    runner: str | None = None,
    options: models.KeyValues = None,
    pictures: str | None = None,
    shard_rows: models.Count = 2000,
    as_json: models.AsJson = False,
):
    """Run a task over a folder of pictures or a table.

    Writes a line of JSON for each row. If it is interrupted, the same command
    continues. A row that cannot be read gets a line with its error.

    Args:
        preset: Preset of the task.
        task: Task, such as vqa, retrieval or embed_images, or one of your own.
        source: Folder of pictures, or table (.csv, .jsonl).
        out: JSONL file, new or begun; with `--runner` a folder.
        text: Text for every picture. May be given again.
        top_k: Answers of a row, best first.
        batch_size: Rows per batch.
        outside: Let a table name pictures anywhere.
        runner: Run on many machines, by this runner of Apache Beam.
        options: With `--runner`: option of the pipeline. May be given again.
        pictures: With `--runner`: folder of the pictures as the workers see
            it.
        shard_rows: With `--runner`: rows of a file of results.
    """
    if (options or pictures) and not runner:
        raise UsageError("`--set` and `--pictures` need `--runner`.")
    models.check_preset(preset)
    rows = (preset, task, source, out, text or (), top_k, batch_size, outside)
    with output.progress("Predicting") as on_rows:
        frameworks.load(context.obj)
        if runner:
            from keras_bridgetower.apps.predict import on_beam

            with frameworks.silenced(context.obj):
                bad, passed_over = on_beam.run(
                    *rows, pictures, shard_rows, runner, options or ()
                )
        else:
            from keras_bridgetower.apps.predict import run

            bad, passed_over = run.run(*rows, on_rows)
    value = {
        "out": out,
        "unreadable_rows": bad,
        "passed_over": dict(passed_over),
    }
    lines = [f"{bad} rows could not be read; each has a line with its error."]
    for what, count in sorted(passed_over.items()):
        lines.append(
            f"skipped, not a picture in a known format: {count} {what}"
        )
    output.show_lines(as_json, value, lines)
