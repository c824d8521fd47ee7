"""The tasks of one preset around one backbone, asked in batches of inputs."""

import functools

from keras_bridgetower.apps.predict import batches
from keras_bridgetower.apps.serve import inputs
from keras_bridgetower.apps.serve.checks import check_lengths
from keras_bridgetower.apps.serve.checks import check_top_k
from keras_bridgetower.apps.serve.checks import opened_pictures
from keras_bridgetower.apps.serve.checks import token_counts
from keras_bridgetower.apps.serve.errors import Refused
from keras_bridgetower.apps.serve.inputs import IMAGES
from keras_bridgetower.apps.serve.inputs import REFUSE
from keras_bridgetower.backend import compiled
from keras_bridgetower.models import head_table
from keras_bridgetower.models.heads import embedding_kinds
from keras_bridgetower.preprocessing.texts import split_at_masks
from keras_bridgetower.presets import registry
from keras_bridgetower.presets import verbs
from keras_bridgetower.presets.table import named_heads
from keras_bridgetower.tasks import by_name
from keras_bridgetower.tasks import preset_io

# Verbs with routes of their own, by the name of their method below. Both
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
        # Tasks and, for /v1/predict, `Verb`s by the names of operations.
        self.tasks, self._others = {}, {}
        opened = {}
        for verb_name, (cls, verb) in known.items():
            if not set(verb.heads) & set(saved):
                continue
            if cls not in opened:
                opened[cls] = _task(cls, folder, saved, opened)
            operation = OWN_ROUTES.get(verb_name, verb_name)
            self.tasks[operation] = opened[cls]
            if verb_name not in OWN_ROUTES:
                self._others[verb_name] = verb
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
                for name, verb in self._others.items()
            },
        }

    def square(self, verb):
        """The values of `decoder.Square`, to which a verb's pictures go."""
        converter = self.tasks[verb].needed_preprocessor().image_converter
        return converter.image_size, converter.mode, converter.size_divisor

    def ask(self, verb, asked):
        """The results of a verb, with `Refused` for what it cannot read.

        Args:
            verb: str, the name of one of the methods below.
            asked: list of inputs.

        Returns:
            list, a result for each. One bad input does no harm to the others.
        """
        return batches.each_or_refused(self._run(verb), asked, Refused.of)

    def _run(self, verb):
        if verb in self._others:
            return functools.partial(self._predict, verb)
        return getattr(self, verb)

    def _predict(self, name, asked):
        """Run a verb without a route of its own on some `inputs.ToPredict`."""
        task, verb, first = self.tasks[name], self._others[name], asked[0]
        columns = {
            column: [getattr(one, column) for one in asked]
            for column in first.columns
        }
        if "text" in columns and "second_text" not in columns:
            tokenizer = task.needed_preprocessor().tokenizer
            counts = token_counts(tokenizer, columns["text"])
            check_lengths(counts, tokenizer.sequence_length)
        for column in IMAGES & set(columns):
            columns[column] = opened_pictures(task, columns[column], column)
        check_top_k(task, asked)
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
            counts = token_counts(tokenizer, given["texts"])
            if first.long_texts == REFUSE:
                check_lengths(counts, most, _MEND)
        if first.image is not None:
            given["images"] = opened_pictures(task, [x.image for x in asked])
        vectors = task.embed(
            **given,
            batch_size=len(asked),
            sequence_length=length,
            long_texts=first.long_texts,
        )
        read = [min(count, most) for count in counts]
        return list(zip(vectors.tolist(), read, strict=True))

    def score(self, asked):
        """The logit of "match" of each `inputs.ToMatch`, a list of float."""
        task = self.tasks["score"]
        scores = task.score(*_pairs(task, asked), batch_size=len(asked))
        return scores.tolist()

    def answer(self, asked):
        """The best `(answer, score)` of each `inputs.ToAsk`, in lists."""
        task = self.tasks["answer"]
        check_top_k(task, asked)
        found = task.answer(
            *_pairs(task, asked),
            top_k=max(one.top_k for one in asked),
            batch_size=len(asked),
        )
        return [
            answers[: one.top_k]
            for answers, one in zip(found, asked, strict=True)
        ]

    def fill(self, asked):
        """The tokens of each mask and the filled text of each `ToAsk`."""
        task = self.tasks["fill"]
        check_top_k(task, asked)
        found = task.fill_mask(
            *_pairs(task, asked, parts_of=split_at_masks),
            top_k=max(one.top_k for one in asked),
            batch_size=len(asked),
        )
        return [
            ([tokens[: one.top_k] for tokens in masks], text)
            for (masks, text), one in zip(found, asked, strict=True)
        ]

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
            columns = self._others[verb].inputs if verb in self._others else ()
            for one in inputs.examples(verb, self.kinds(), tuple(columns)):
                for size in sizes:
                    self._run(verb)([one] * size)

    def _length(self, task, tokens):
        """Tokens of each text, at most the positions of the text encoder."""
        tokens = tokens or self.tokens
        if tokens is None:
            return None
        return min(tokens, task.backbone.text_encoder.max_sequence_length)


def _task(cls, folder, saved, others):
    """A task of a preset, around the backbone of those that are open."""
    if not others:
        return cls.from_preset(folder)
    backbone = next(iter(others.values())).backbone
    values = cls.head_arguments(saved)
    reading = dict.fromkeys(("image_size", "image_mode", "sequence_length"))
    preprocessor = preset_io.preprocessor_of(
        cls, folder, reading, values, backbone
    )
    with head_table.awaiting(saved, folder.room_for_heads()):
        task = cls(backbone, preprocessor, **values)
    preset_io.load_heads(task, folder, saved, random_heads=False)
    return task


def _pairs(task, asked, **kwargs):
    """Pictures and texts of inputs, of which the model reads all.

    Args:
        task: a task.
        asked: list of `inputs.ToMatch` or `inputs.ToAsk`.
        **kwargs: as `token_counts`.
    """
    tokenizer = task.needed_preprocessor().tokenizer
    texts = [one.text for one in asked]
    counts = token_counts(tokenizer, texts, **kwargs)
    check_lengths(counts, tokenizer.sequence_length)
    return opened_pictures(task, [one.image for one in asked]), texts


def _powers_of_two(most):
    sizes = [1]
    while sizes[-1] < most:
        sizes.append(min(2 * sizes[-1], most))
    return sizes
