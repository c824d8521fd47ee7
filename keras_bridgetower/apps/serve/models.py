"""The tasks of a preset around one backbone, and the index that they search."""

import contextlib
import functools
import itertools
import pathlib
import threading

import numpy as np

from keras_bridgetower.apps.predict import batches
from keras_bridgetower.apps.search.models import SearchModels
from keras_bridgetower.apps.search.models import task_around
from keras_bridgetower.apps.search.picture_search import PictureSearch
from keras_bridgetower.apps.search.stores.qdrant import QdrantFolder
from keras_bridgetower.apps.serve.errors import LOG
from keras_bridgetower.apps.serve.errors import InputError
from keras_bridgetower.apps.serve.errors import Refused
from keras_bridgetower.apps.serve.inputs import IMAGES
from keras_bridgetower.apps.serve.inputs import REFUSE
from keras_bridgetower.apps.serve.inputs import ToEmbed
from keras_bridgetower.apps.serve.inputs import ToPredict
from keras_bridgetower.apps.serve.inputs import picture
from keras_bridgetower.backend import compiled
from keras_bridgetower.models import head_table
from keras_bridgetower.models.heads import embedding_kinds
from keras_bridgetower.preprocessing.geometry import as_square
from keras_bridgetower.preprocessing.images import open_image
from keras_bridgetower.preprocessing.texts import checked_texts
from keras_bridgetower.preprocessing.texts import split_at_masks
from keras_bridgetower.presets import registry
from keras_bridgetower.presets import verbs
from keras_bridgetower.presets.table import named_heads
from keras_bridgetower.tasks import by_name

# Operations with routes of their own, by the name of their verb. Both
# verbs that embed share one. The route /v1/predict runs all others.
OWN_ROUTES = {
    verbs.EMBED_IMAGES.name: "embed",
    verbs.EMBED_TEXTS.name: "embed",
    verbs.SCORE.name: "score",
    verbs.ANSWER.name: "answer",
    verbs.FILL.name: "fill",
}
# Of the routes that embed; others cut no text.
_MEND = 'Send a shorter text, or `"truncate": true` to /v1/embeddings.'


class ServedPreset:
    """A preset, opened once, and what can be asked of it.

    Args:
        preset: as `from_preset` of a task takes it.
        tokens: int, tokens of a text that is embedded, or None for the
            preset's own number.

    Raises:
        ValueError: no such preset, one without any head that is served, or
            more tokens than positions.
    """

    def __init__(self, preset, tokens=None):
        known = by_name.verbs()
        folder = registry.open_preset(preset)
        saved = named_heads(preset, head_table.saved_heads(folder))
        # Tasks and `Verb`s by the names of operations.
        self.tasks, self._verbs = {}, {}
        opened = {}
        for verb_name, (cls, verb) in known.items():
            if not set(verb.heads) & set(saved):
                continue
            if not opened:
                opened[cls] = cls.from_preset(folder)
                backbone = opened[cls].backbone
            elif cls not in opened:
                opened[cls] = task_around(
                    backbone, cls, folder, saved, cls.head_arguments(saved)
                )
            operation = OWN_ROUTES.get(verb_name, verb_name)
            self.tasks[operation] = opened[cls]
            self._verbs[operation] = verb
        if not self.tasks:
            heads = dict.fromkeys(h for _, v in known.values() for h in v.heads)
            raise ValueError(
                f"`preset` must have one of the heads {', '.join(heads)}. "
                f"Received: preset={preset!r} with the heads "
                f"{', '.join(saved) or 'none'}"
            )
        self.tokens = tokens
        # What `SearchModels.identity` says of it, by kind of vectors.
        self.identities = {}

    def kinds(self):
        """Return the kinds of embeddings, such as `("text", "image")`."""
        embed = self.tasks.get("embed")
        return tuple(embedding_kinds(embed.ways)) if embed else ()

    def facts(self):
        """Return a dict of plain values that clients may see."""
        embed = self.tasks.get("embed")
        return {
            "verbs": tuple(self.tasks),
            "kinds": self.kinds(),
            "width": embed.projection_dim if embed else None,
            "inputs": {
                name: (tuple(verb.inputs), tuple(verb.optional))
                for name, verb in self._verbs.items()
                if name not in OWN_ROUTES.values()
            },
        }

    def square(self, verb):
        """The values of `decoder.Square`, to which a verb's pictures go."""
        converter = self.tasks[verb].needed_preprocessor().image_converter
        return converter.image_size, converter.mode, converter.size_divisor

    def ask(self, verb, asked):
        """Return the results of a verb, with `Refused` for unreadable inputs.

        Args:
            verb: str, one of `facts()["verbs"]`.
            asked: list of inputs with the same `batch`.

        Returns:
            list, a result for each. One bad input does no harm to the others.
        """
        run = functools.partial(self._run, verb)
        return batches.each_or_refused(run, asked, Refused.of)

    def _run(self, name, asked):
        """Run a verb on inputs. Return a dict with its results for each."""
        if name == "embed":
            return self.embed(asked)
        task, verb, first = self.tasks[name], self._verbs[name], asked[0]
        columns = {
            column: [getattr(one, column) for one in asked]
            for column in first.columns
        }
        if "text" in columns and "second_text" not in columns:
            tokenizer = task.needed_preprocessor().tokenizer
            split = split_at_masks if verb is verbs.FILL else _whole
            counts = _token_counts(tokenizer, columns["text"], split)
            _check_lengths(counts, tokenizer.sequence_length)
        for column in IMAGES & set(columns):
            columns[column] = _opened(task, columns[column], column)
        try:
            task.check_request(top_k=first.top_k)
        except ValueError as error:
            raise InputError("top_k", str(error)) from error
        found = verb.run(task, columns, first.top_k, len(asked))
        return [
            {k: verbs.named(kind, row[k]) for k, kind in verb.results.items()}
            for row in found
        ]

    def embed(self, asked):
        """Embed texts, pictures or pairs, all of the same kind and rule.

        Args:
            asked: list of `inputs.ToEmbed`.

        Returns:
            list of `(vector, tokens)`: a list of float, and how many tokens
            of the text were read.
        """
        task, first = self.tasks["embed"], asked[0]
        tokenizer = task.needed_preprocessor().tokenizer
        length = self._length(task, first.tokens)
        most = length or tokenizer.sequence_length
        given, counts = {}, [0] * len(asked)
        if first.text is not None:
            given["texts"] = [one.text for one in asked]
            counts = _token_counts(tokenizer, given["texts"])
            if first.long_texts == REFUSE:
                _check_lengths(counts, most, _MEND)
        if first.image is not None:
            given["images"] = _opened(task, [x.image for x in asked])
        vectors = task.embed(
            **given,
            batch_size=len(asked),
            sequence_length=length,
            long_texts=first.long_texts,
        )
        read = [min(count, most) for count in counts]
        return list(zip(vectors.tolist(), read, strict=True))

    def warm_up(self, batch_size):
        """Run each verb once for every shape of a batch that it will get.

        Batches are filled up to powers of two. Where nothing is compiled,
        one of each kind is enough. The longer texts of OPEA's shapes are
        compiled when they are first asked.

        Args:
            batch_size: int, the largest batch.
        """
        for verb, task in self.tasks.items():
            sizes = [1]
            if not compiled.is_eager(task):
                sizes = _powers_of_two(batch_size)
            for one in self._examples(verb):
                for size in sizes:
                    self._run(verb, [one] * size)

    def _examples(self, name):
        """Return an input of each kind that a verb takes."""
        image = picture()
        if name == "embed":
            texts = {"text": "a", "image": None, "fused": "a"}
            return [
                ToEmbed(texts[kind], None if kind == "text" else image)
                for kind in self.kinds()
            ]
        text = "<mask>" if name == "fill" else "a"
        return [
            ToPredict(
                **{
                    column: image if column in IMAGES else text
                    for column in self._verbs[name].inputs
                }
            )
        ]

    def _length(self, task, tokens):
        """Tokens of each text, at most the positions of the text encoder."""
        tokens = tokens or self.tokens
        if tokens is None:
            return None
        return min(tokens, task.backbone.text_encoder.max_sequence_length)


def _whole(text):
    return [text]


def _token_counts(tokenizer, texts, split=_whole):
    """Count the tokens of texts, special tokens included.

    Args:
        tokenizer: a `PackedTokenizer`.
        texts: list of str.
        split: callable that splits a text into parts, which one token each
            separates.

    Returns:
        list of int.

    Raises:
        ValueError: a text that cannot be tokenized, such as an empty one.
    """
    parts = [split(text) for text in checked_texts(texts)[0]]
    found = tokenizer.token_lists(itertools.chain.from_iterable(parts))
    lengths = map(len, found)
    return [
        1 + len(some) + sum(itertools.islice(lengths, len(some)))
        for some in parts
    ]


def _check_lengths(counts, most, fix="Send a shorter text."):
    """Reject texts that are longer than the model reads."""
    for count in counts:
        if count > most:
            raise InputError(
                "text",
                f"a text must have at most {most} tokens, special tokens "
                f"included. {fix} Received: {count} tokens",
            )


def _opened(task, images, name="image"):
    """Open pictures, resized for a task; an error names the input."""
    converter = task.needed_preprocessor().image_converter
    try:
        return [
            as_square(open_image(image, name), converter, name)
            for image in images
        ]
    except ValueError as error:
        raise InputError(name, str(error)) from error


def _powers_of_two(most):
    sizes = [1]
    while sizes[-1] < most:
        sizes.append(min(2 * sizes[-1], most))
    return sizes


_UNREADABLE = "The file cannot be read."


class ServedIndex:
    """An index of pictures and the models that search it.

    Args:
        store: str, as for `PictureSearch`.
        served: `ServedPreset`, whose models made the index.

    Raises:
        ValueError: there is no index, or its models differ.
    """

    def __init__(self, store, served):
        self._served = served
        search = PictureSearch(store, _Models(served))
        # Rejects an index of other models before serving.
        search.query(text="a", top_k=1, rerank=1)
        self._store = search.store
        # The other stores allow concurrent queries.
        one_by_one = isinstance(self._store, QdrantFolder)
        self._turn = (
            threading.Lock() if one_by_one else contextlib.nullcontext()
        )

    def find(self, query, embed, match):
        """Search the index.

        Args:
            query: `inputs.ToFind` with a decoded image.
            embed: callable that takes an `inputs.ToEmbed` and returns a list
                with the result of the verb.
            match: callable that takes a list of paths and a text, and returns
                the logit of each pair, or `Refused`.

        Returns:
            list of dict, best first; or `Refused`.
        """
        models = _Models(self._served, embed, match)
        try:
            with self._turn:
                hits = PictureSearch(self._store, models).query(
                    query.text, query.image, query.top_k, query.rerank
                )
        except ValueError as error:
            # Errors about the index contain paths of this machine.
            if "`store`" in str(error):
                LOG.error("The index cannot be searched", exc_info=error)
                return Refused("The index cannot be searched.")
            return Refused.of(error)
        return [_public(hit) for hit in hits]


class _Models(SearchModels):
    """Models of a preset, called in the batches of the server.

    Args:
        served: `ServedPreset`.
        embed, match: as in `ServedIndex.find`; None to call the models
            directly.
    """

    def __init__(self, served, embed=None, match=None):
        tasks = served.tasks
        super().__init__(tasks["embed"], tasks.get("score"))
        self._served = served
        self._embed, self._match = embed, match

    def identity(self, vectors):
        """Return `SearchModels.identity`, computed once."""
        known = self._served.identities
        if vectors not in known:
            known[vectors] = super().identity(vectors)
        return known[vectors]

    def embed(self, texts=None, images=None, **options):
        """Embed one input; see `SearchModels.embed`."""
        if self._embed is None:
            return super().embed(texts=texts, images=images, **options)
        # The token count of the index, whatever the server uses.
        tokens = None
        if self._served.tokens is not None:
            tokenizer = self.contrastive.needed_preprocessor().tokenizer
            tokens = tokenizer.sequence_length
        query = ToEmbed(texts, images, self.long_texts, tokens)
        [result] = self._embed(query)
        if isinstance(result, Refused):
            raise InputError(result.about, result.message)
        return np.array(result[0], "float32")

    def matches(self, paths, text, batch_size):
        """Score picture files; see `SearchModels.matches`."""
        if self._match is None:
            return super().matches(paths, text, batch_size)
        return [
            ValueError(x.message) if isinstance(x, Refused) else x["score"]
            for x in self._match(paths, text)
        ]


def _public(hit):
    """Describe a hit to clients, without folders of the server."""
    path = pathlib.PurePath(hit.path)
    below = path.is_relative_to(hit.folder)
    return {
        "object": "hit",
        "id": hit.name,
        "picture": str(path.relative_to(hit.folder)) if below else path.name,
        "text": hit.text,
        "similarity": hit.similarity,
        "match": hit.match,
        "problem": _UNREADABLE if hit.problem else None,
    }
