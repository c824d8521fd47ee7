"""Commands that say how well pictures and texts match."""

import collections
import pathlib
from typing import Annotated

import typer

from keras_bridgetower.cli import models
from keras_bridgetower.cli import output
from keras_bridgetower.cli.errors import UsageError
from keras_bridgetower.cli.models import AsJson
from keras_bridgetower.cli.models import Asked
from keras_bridgetower.cli.models import Picture
from keras_bridgetower.cli.models import preset_option

HEADS = ("itm", "rank")
MATCH = Asked("score", "BridgeTowerRetrieval", HEADS)
RANK = Asked("rank", "BridgeTowerRetrieval", HEADS)


def match(
    context: typer.Context,
    picture: Picture,
    texts: Annotated[
        list[str], typer.Argument(help="Texts that may fit the picture.")
    ],
    preset: preset_option(True) = "bridgetower_tiny_easy_retrieval",
    as_json: AsJson = False,
):
    """Score how well each of some texts fits a picture.

    A score is the logit of "match": higher is better.
    """
    (image,) = models.open_pictures(picture)
    task = models.open_task(MATCH, preset, context.obj, len(texts))
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
    preset: preset_option(True) = "bridgetower_tiny_easy_retrieval",
    top_k: Annotated[
        int, typer.Option(min=1, help="How many pictures to print.")
    ] = 10,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Pictures of a forward pass.")
    ] = 32,
    as_json: AsJson = False,
):
    """Order pictures by how well they fit a text, the best first."""
    paths = picture_paths(pictures)
    task = models.open_task(RANK, preset, context.obj, len(paths))
    with output.status(f"Ranking {len(paths)} pictures"):
        scores = task.rank(
            list(map(str, paths)), [text], batch_size=batch_size, verbose=0
        )[:, 0].tolist()
    best = sorted(range(len(paths)), key=lambda i: -scores[i])[:top_k]
    found = [(str(paths[i]), scores[i]) for i in best]
    value = {
        "text": text,
        "preset": preset,
        "searched": len(paths),
        "pictures": [{"picture": path, "score": s} for path, s in found],
    }
    output.show(as_json, value, ("picture", "score"), found)


def picture_paths(sources):
    """The pictures of some files and folders, each folder in order.

    Those that cannot be read are left out with a warning.

    Args:
        sources: list of `pathlib.Path`.

    Raises:
        FileNotFoundError: no such file or folder.
        UsageError: there is no picture.
    """
    from keras_bridgetower.data.datasets.tables import FilePicture
    from keras_bridgetower.predict.rows import picture_files

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
        raise UsageError(
            "There must be a picture that can be read. Received: none in "
            + ", ".join(map(str, sources))
        )
    return good
