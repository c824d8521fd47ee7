"""Commands that say how well pictures and texts match."""

import collections
import pathlib
from typing import Annotated

import typer

from keras_bridgetower.apps.cli import models
from keras_bridgetower.apps.cli import output
from keras_bridgetower.apps.cli.errors import UsageError
from keras_bridgetower.apps.cli.models import AsJson
from keras_bridgetower.apps.cli.models import Asked
from keras_bridgetower.apps.cli.models import Picture
from keras_bridgetower.apps.cli.models import preset_option

HEADS = ("itm", "rank")
MATCH = Asked("score", "BridgeTowerRetrieval", HEADS)
RANK = Asked("rank", "BridgeTowerRetrieval", HEADS)


def match(
    context: typer.Context,
    picture: Picture,
    texts: Annotated[
        list[str], typer.Argument(help="Texts that may fit the picture.")
    ],
    preset: preset_option(True) = MATCH.default,
    as_json: AsJson = False,
):
    """Score how well each of some texts fits a picture.

    A score is the logit of "match": higher is better.
    """
    (image,) = models.open_pictures(picture)
    task = models.open_task(MATCH, preset, context, len(texts))
    scores = task.score(image, list(texts)).tolist()
    matches = [
        {"text": text, "score": score}
        for text, score in zip(texts, scores, strict=True)
    ]
    value = {"picture": str(picture), "preset": preset, "matches": matches}
    rows = list(zip(texts, scores, strict=True))
    output.show(as_json, value, ("text", "score"), rows)


def rank(
    context: typer.Context,
    text: Annotated[str, typer.Argument(help="What to look for.")],
    pictures: Annotated[
        list[pathlib.Path],
        typer.Argument(help="Picture files, and folders of them."),
    ],
    preset: preset_option(True) = RANK.default,
    top_k: Annotated[
        int, typer.Option(min=1, help="How many pictures to print.")
    ] = 10,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Pictures of a forward pass.")
    ] = 32,
    as_json: AsJson = False,
):
    """Order pictures by how well they fit a text, the best first.

    Pictures that cannot be read are left out with a warning.
    """
    paths = picture_paths(pictures)
    task = models.open_task(RANK, preset, context, len(paths))
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


def picture_paths(sources):
    """The pictures of some files and folders, each folder in order.

    Those that cannot be read are left out with a warning.

    Args:
        sources: list of `pathlib.Path`.

    Raises:
        FileNotFoundError: no such file or folder.
        UsageError: there is no picture.
    """
    from keras_bridgetower.apps.predict.rows import picture_files
    from keras_bridgetower.data.datasets.tables import FilePicture

    paths = []
    for source in sources:
        if source.is_dir():
            found = picture_files(source, collections.Counter())
            paths += [source / name for name in found]
        else:
            models.check_is_file(source)
            paths.append(source)
    problems = {path: FilePicture(str(path)).problem() for path in paths}
    good = [path for path in paths if not problems[path]]
    for path, problem in problems.items():
        if problem:
            output.warn(f"{path} is left out: {problem}")
    if not good:
        raise _none_readable(sources)
    return good


def _scored(task, text, paths, batch_size):
    """What `predict` says of each picture with the text, a list of dicts."""
    from keras_bridgetower.apps.predict.batches import open_picture
    from keras_bridgetower.apps.predict.batches import results_of
    from keras_bridgetower.apps.predict.rows import Row
    from keras_bridgetower.apps.predict.verbs import check_settings
    from keras_bridgetower.preprocessing.geometry import as_square

    converter = task.needed_preprocessor().image_converter

    def read(row, column):
        return as_square(open_picture(row, column), converter, column)

    # Else each picture would be blamed for the text.
    check_settings(task, "retrieval", [text])
    rows = [
        Row(number, {"image": str(path), "text": text}, pathlib.Path())
        for number, path in enumerate(paths)
    ]
    batches = results_of(task, "retrieval", rows, 1, batch_size, read)
    return [result for batch in batches for result in batch]


def _none_readable(sources):
    return UsageError(
        "There must be a picture that can be read. Received: none in "
        + ", ".join(map(str, sources))
    )
