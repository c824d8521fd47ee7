"""The presets of a server by name, as its routes ask them."""

from keras_bridgetower.apps.serve.errors import Refused
from keras_bridgetower.apps.serve.errors import RequestError
from keras_bridgetower.apps.serve.plan import served_name

# The head that each verb with a route of its own needs.
_NEEDS = {
    "embed": "a contrastive head",
    "score": "a matching head",
    "answer": "a question answering head",
    "fill": "a masked language head",
}


class AskedPreset:
    """One preset of a server, asked through its engine.

    Args:
        name: str, by which clients call it.
        facts: dict, what `ServedPreset.facts` returns.
        ask: coroutine function of a verb and a list of inputs that returns a
            list of results, of which some may be `Refused`.
        count: callable of a verb and a number, for metrics.
    """

    def __init__(self, name, facts, ask, count):
        self.name = name
        self.verbs = facts["verbs"]
        self.kinds = facts["kinds"]
        self.width = facts["width"]
        # Needed and optional inputs of the verbs of /v1/predict.
        self.inputs = facts["inputs"]
        self._ask = ask
        self._count = count

    async def ask(self, verb, asked, params):
        """The results of a verb.

        Args:
            verb: str.
            asked: list of inputs.
            params: list of dict, for each the fields of the body by what a
                `Refused` can be about.

        Raises:
            RequestError: an input that the verb refuses.
        """
        found = await self._ask(verb, asked)
        for result, fields in zip(found, params, strict=True):
            if isinstance(result, Refused):
                param = fields[result.about]
                raise RequestError(
                    400, f"{param}: {result.message}", param, result.code
                )
        self._count(verb, len(asked))
        return found

    def check_kind(self, kind, param):
        """Refuse to embed what the contrastive head has no part for."""
        if kind not in self.kinds:
            raise RequestError(
                400,
                f"{param}: the preset {self.name} embeds texts and pictures "
                "alone, and no pairs: its contrastive head is two-way. Send "
                "`text` or `image`.",
                param,
            )


class Presets:
    """All presets of a server.

    Args:
        presets: list of `AskedPreset`, of which the first that can do what is
            asked answers where a request names none.
    """

    def __init__(self, presets):
        self._presets = {_same(preset.name): preset for preset in presets}

    def __iter__(self):
        return iter(self._presets.values())

    def of(self, name, verb):
        """The preset that answers.

        Args:
            name: str, as the request says, or None. Hyphens and underscores
                are the same, and a handle's user may stand before it.
            verb: str, what it must be able to do.

        Raises:
            RequestError: no such preset, or one that cannot do it.
        """
        if name is None:
            return self._first(verb)
        preset = self._presets.get(_same(name))
        if preset is None:
            raise RequestError(
                404,
                f"There is no model {name[:100]!r} here. Served are: "
                f"{', '.join(p.name for p in self)}.",
                "model",
                "model_not_found",
            )
        if verb not in preset.verbs:
            raise RequestError(
                400,
                f"The model {preset.name} lacks {_needs(verb)}, which this "
                "route needs.",
                "model",
            )
        return preset

    def _first(self, verb):
        for preset in self:
            if verb in preset.verbs:
                return preset
        raise RequestError(
            404, f"No model here has {_needs(verb)}, which this route needs."
        )


def _needs(verb):
    return _NEEDS.get(verb, f"a head for the task {verb[:100]!r}")


def _same(name):
    return served_name(name).replace("-", "_").lower()
