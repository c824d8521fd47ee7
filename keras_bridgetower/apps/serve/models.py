"""Served models: the tasks of a preset, and the index that they search."""

import contextlib
import copy
import functools
import pathlib
import threading

import numpy as np
from PIL import Image

# Both register classes with Keras.
from keras_bridgetower import convert  # noqa: F401
from keras_bridgetower import tasks  # noqa: F401
from keras_bridgetower.apps.predict import batches
from keras_bridgetower.apps.search.models import SearchModels
from keras_bridgetower.apps.search.models import improves_lists
from keras_bridgetower.apps.search.picture_search import PictureSearch
from keras_bridgetower.apps.search.stores.qdrant import QdrantFolder
from keras_bridgetower.apps.serve import errors
from keras_bridgetower.apps.serve.inputs import IMAGES
from keras_bridgetower.apps.serve.inputs import REFUSE
from keras_bridgetower.apps.serve.inputs import Asked
from keras_bridgetower.backend import compiled
from keras_bridgetower.metrics.calibration import match_shares
from keras_bridgetower.models import head_table
from keras_bridgetower.models.heads import embedding_kinds
from keras_bridgetower.preprocessing.texts import checked_texts
from keras_bridgetower.preprocessing.texts import encode_long
from keras_bridgetower.preprocessing.texts import split_at_masks
from keras_bridgetower.presets import registry
from keras_bridgetower.presets import verbs
from keras_bridgetower.presets.table import named_heads
from keras_bridgetower.presets.table import preset_name
from keras_bridgetower.tasks import by_name

# Operations with routes of their own, by the name of their verb. Both verbs
# that embed share one. /v1/predict runs all others.
OWN_ROUTES = {
    verbs.EMBED_IMAGES.name: "embed",
    verbs.EMBED_TEXTS.name: "embed",
    verbs.SCORE.name: "score",
    verbs.ANSWER.name: "answer",
    verbs.FILL.name: "fill",
}
_TOO_LONG = (
    "a text must have at most {} tokens, not {}. Send a shorter text; routes "
    'that embed, rank and score cut it for `"truncate": true`.'
)


class ServedPreset:
    """A preset with the tasks of all its heads, around one backbone.

    Args:
        preset: str, name or folder.
        tokens: int, tokens of an embedded text, or None for the preset's own
            number.

    Raises:
        ValueError: no such preset.
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
                opened[cls] = by_name.task_around(
                    backbone, cls, folder, saved, cls.head_arguments(saved)
                )
            operation = OWN_ROUTES.get(verb_name, verb_name)
            self.tasks[operation] = opened[cls]
            self._verbs[operation] = verb
        self.preset, self.tokens = preset_name(preset), tokens
        # Whether a search reranks by default.
        self.reranks = improves_lists(preset, folder)

    def facts(self):
        """Return plain values for clients: verbs, width of vectors, inputs."""
        embed = self.tasks.get("embed")
        return {
            "verbs": tuple(self.tasks),
            "width": embed.projection_dim if embed else None,
            "inputs": {
                name: (tuple(verb.inputs), tuple(verb.optional))
                for name, verb in self._verbs.items()
                if name not in OWN_ROUTES.values()
            },
        }

    def square(self, verb):
        """Return the `Square` to which a verb's pictures are resized."""
        return self.tasks[verb].needed_preprocessor().image_converter.square

    def ask(self, verb, asked):
        """Return the results of a verb, with `Refused` for unreadable inputs.

        Args:
            verb: str, one of `facts()["verbs"]`.
            asked: list of `Asked` with the same `batch`.
        """
        run = functools.partial(self._run, verb)
        return batches.each_or_refused(run, asked, errors.Refused.of)

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
            columns["text"], counts = _read_texts(
                *(tokenizer, asked, tokenizer.sequence_length),
                masks=verb is verbs.FILL,
            )
        try:
            task.check_request(top_k=first.top_k)
        except ValueError as error:
            raise errors.InputError("top_k", str(error)) from error
        found = verb.run(task, columns, first.top_k, len(asked))
        if verb is verbs.SCORE:
            for row, count in zip(found, counts, strict=True):
                row["tokens"] = count
                if "rank" not in task.answering_heads:
                    row["probability"] = float(match_shares(row["score"]))
        kinds = verb.results.items()
        return [
            row | {name: verbs.named(kind, row[name]) for name, kind in kinds}
            for row in found
        ]

    def embed(self, asked):
        """Embed a list of `Asked` with the same `batch`.

        Returns:
            list of `(vector, tokens)`: a list of float, and how many tokens
            of the text were read.
        """
        task, first = self.tasks["embed"], asked[0]
        tokenizer = task.needed_preprocessor().tokenizer
        most = min(
            first.tokens or self.tokens or tokenizer.sequence_length,
            task.backbone.text_length,
        )
        given, counts = {}, [0] * len(asked)
        if first.text is not None:
            given["texts"], counts = _read_texts(tokenizer, asked, most)
        if first.image is not None:
            given["images"] = [one.image for one in asked]
        vectors = task.embed(
            **given,
            batch_size=len(asked),
            sequence_length=most,
            long_texts=REFUSE,
        )
        return list(zip(vectors.tolist(), counts, strict=True))

    def warm_up(self, batch_size):
        """Run each verb once for every shape of a batch that it will get.

        Batches are filled up to powers of two. Models that run eagerly need
        one of each kind.

        Args:
            batch_size: int, the largest batch.
        """
        powers = [2**n for n in range((batch_size - 1).bit_length())]
        for verb, task in self.tasks.items():
            sizes = [1] if compiled.is_eager(task) else [*powers, batch_size]
            for one in self._examples(verb):
                for size in sizes:
                    self._run(verb, [one] * size)

    def _examples(self, name):
        """Return an input of each kind that a verb takes."""
        image = Image.new("RGB", (32, 32), "grey")
        if name == "embed":
            kinds = {
                "text": Asked("a"),
                "image": Asked(image=image),
                "fused": Asked("a", image),
            }
            ways = self.tasks[name].ways
            return [kinds[kind] for kind in embedding_kinds(ways)]
        text = "<mask>" if name == "fill" else "a"
        columns = self._verbs[name].inputs
        values = {x: image if x in IMAGES else text for x in columns}
        return [Asked(**values)]


def _read_texts(tokenizer, asked, most, masks=False):
    """Return the texts of inputs, cut as they ask, and their numbers of tokens.

    Args:
        tokenizer: a `PackedTokenizer`.
        asked: list of `Asked`.
        most: int, tokens that the model reads, special tokens included.
        masks: bool, whether `<mask>` is one token.

    Raises:
        InputError: a text that is not to be cut is too long.
        ValueError: a text that cannot be tokenized, such as an empty one.
    """
    texts, counts = [], []
    for one in asked:
        [text], _ = checked_texts([one.text])
        allowed, rule = one.most, one.long_texts
        if rule != REFUSE:
            allowed = min(allowed or most, most)
        count = _count_tokens(tokenizer, text, masks)
        if allowed and count > allowed:
            rule = "cut_end" if rule == REFUSE else rule
            ids = encode_long(tokenizer, text, max(allowed, 3), rule)
            # Without the rest of a character that was cut.
            text = tokenizer.detokenize(ids["token_ids"]).strip("\ufffd")
            count = _count_tokens(tokenizer, text, masks)
        if count > most:
            raise errors.InputError("text", _TOO_LONG.format(most, count))
        texts.append(text)
        counts.append(count)
    return texts, counts


def _count_tokens(tokenizer, text, masks):
    parts = split_at_masks(text) if masks else [text]
    # One token between two parts, and one at each end.
    return sum(map(len, tokenizer.token_lists(parts))) + len(parts) + 1


class ServedIndex:
    """An index of pictures and the models that search it.

    Args:
        store: str, as for `PictureSearch`.
        served: `ServedPreset`, whose models made the index.

    Raises:
        ValueError: there is no index, or its models differ.
    """

    def __init__(self, store, served):
        self._models = _Models(served)
        search = PictureSearch(store, self._models)
        # Rejects an index of other models before serving.
        matches = self._models.retrieval is not None
        search.query(text="a", top_k=1, rerank=int(matches))
        self._store = search.store
        self._turn = contextlib.nullcontext()
        # The other stores allow concurrent queries.
        if isinstance(self._store, QdrantFolder):
            self._turn = threading.Lock()

    def find(self, query, embed, match):
        """Search the index.

        Args:
            query: `inputs.Asked` with a decoded image.
            embed: callable that takes an `inputs.Asked` and returns a list
                with the result of the verb.
            match: callable that takes a list of paths and a text, and returns
                the score of each pair, or `Refused`.

        Returns:
            list of dict, best first; or `Refused`.
        """
        models = copy.copy(self._models)
        models.ask_embed, models.ask_match = embed, match
        try:
            with self._turn:
                hits = PictureSearch(self._store, models).query(
                    query.text, query.image, query.top_k, query.rerank
                )
        except ValueError as error:
            # Errors about the index contain paths of this machine.
            if "`store`" in str(error):
                errors.LOG.error("The index cannot be searched", exc_info=error)
                return errors.Refused("The index cannot be searched.")
            return errors.Refused.of(error)
        return [_public(hit) for hit in hits]


class _Models(SearchModels):
    """Models of a `ServedPreset`, which a query calls through the server."""

    # See `ServedIndex.find`; None to call the models directly.
    ask_embed = ask_match = None

    def __init__(self, served):
        embed, score = (served.tasks.get(name) for name in ("embed", "score"))
        super().__init__(embed, score, served.preset, reranks=served.reranks)
        # Compute the checksums of the weights once.
        self.identity = functools.cache(super().identity)
        self.describe_states = functools.cache(super().describe_states)

    def embed(self, texts=None, images=None, **options):
        """Embed one input, as `SearchModels.embed`."""
        if self.ask_embed is None:
            return super().embed(texts=texts, images=images, **options)
        # The token count of the index, whatever the server uses.
        tokenizer = self.contrastive.needed_preprocessor().tokenizer
        tokens = tokenizer.sequence_length
        rule = {"long_texts": self.long_texts, "tokens": tokens}
        [result] = self.ask_embed(Asked(texts, images, **rule))
        if isinstance(result, errors.Refused):
            raise errors.InputError(result.about, result.message)
        return np.array(result[0], "float32")

    def matches(self, paths, text, batch_size):
        """Score picture files, as `SearchModels.matches`."""
        if self.ask_match is None:
            return super().matches(paths, text, batch_size)
        return [
            ValueError(x.message)
            if isinstance(x, errors.Refused)
            else x["score"]
            for x in self.ask_match(paths, text)
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
        "problem": "The file cannot be read." if hit.problem else None,
    }
