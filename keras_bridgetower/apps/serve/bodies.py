"""Schemas of request bodies, in strict JSON."""

from typing import Annotated
from typing import Literal

import fastapi
import fastapi.routing
import pydantic

from keras_bridgetower.apps.serve.errors import RequestError
from keras_bridgetower.apps.serve.inputs import REFUSE
from keras_bridgetower.files import parse_json


class _Request(fastapi.Request):
    async def json(self):
        try:
            return parse_json(await self.body(), nan=False)
        except ValueError as error:
            raise RequestError(
                400, f"The body must be JSON, encoded in UTF-8: {error}."
            ) from error


class JSONRoute(fastapi.routing.APIRoute):
    """A route whose body is parsed by `files.parse_json`."""

    def get_route_handler(self):
        handle = super().get_route_handler()

        async def strict(request):
            return await handle(_Request(request.scope, request.receive))

        return strict


class Body(pydantic.BaseModel):
    """A JSON object, without conversions of types.

    Unknown fields are kept, for `unknown`.
    """

    model_config = pydantic.ConfigDict(extra="allow", strict=True)


def unknown(value, place=""):
    """Yield the names of unknown fields of a body, as `documents.title`."""
    if isinstance(value, list):
        for one in value:
            yield from unknown(one, place)
    elif isinstance(value, Body):
        for name, one in value:
            if name not in type(value).model_fields:
                yield f"{place}{name}"
            yield from unknown(one, f"{place}{name}.")


class ModelBody(Body):
    """The body of a request that may name a preset."""

    model: str | None = None


class Input(Body):
    """A text, a picture, or both.

    A picture is base64 or a `data:` URL.
    """

    text: str | None = None
    image: str | None = None

    @pydantic.model_validator(mode="after")
    def _holds_something(self):
        if self.text is None and self.image is None:
            raise ValueError("`text` or `image` must be given, or both")
        return self


def _as_input(value):
    """Read a plain string as a text."""
    return {"text": value} if isinstance(value, str) else value


def _as_list(value):
    return [value] if isinstance(value, str | dict) else value


def _listed(kind):
    """Return the type of one value or several."""
    several = Annotated[list[kind], pydantic.Field(min_length=1)]
    return Annotated[several, pydantic.BeforeValidator(_as_list)]


class CutBody(ModelBody):
    """The body of a request whose long texts can be cut.

    With `truncate`, they are cut at the end (`"Right"`) or at the start
    (`"Left"`). Otherwise they are rejected.
    """

    truncate: bool = False
    truncation_direction: Literal["Right", "Left", "right", "left"] = "Right"

    @property
    def long_texts(self):
        """The rule of `Asked` for long texts."""
        rules = {"right": "cut_end", "left": "cut_start"}
        side = self.truncation_direction.lower()
        return rules[side] if self.truncate else REFUSE


class EmbeddingsBody(CutBody):
    """Inputs to embed, as sent by clients of OpenAI and the hosted service."""

    input: _listed(Annotated[Input, pydantic.BeforeValidator(_as_input)])
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


def _read_document(value):
    """Read a document: an object, vLLM's `content`, or a string.

    A string is a text, or a picture in a `data:` URL.
    """
    if isinstance(value, dict) and {*value} == {"content"}:
        match value["content"]:
            case [{"type": "text", "text": text}]:
                return {"text": text}
            case [{"type": "image_url", "image_url": {"url": url}}]:
                return {"image": url}
        raise ValueError("`content` must be one `text` or one `image_url`")
    if isinstance(value, str) and value.startswith("data:image/"):
        return {"image": value}
    return _as_input(value)


Documents = _listed(Annotated[Input, pydantic.BeforeValidator(_read_document)])
# The names that clients of Cohere, Jina, TEI and vLLM have for the two sides of
# a comparison. `pairs`, each a picture and a text, need no query.
QUERY = pydantic.AliasChoices("query", "queries", "text_1", "data_1")
DOCUMENTS = pydantic.AliasChoices(
    "documents", "texts", "pairs", "items", "text_2", "data_2"
)
# Unlike other unknown fields, these change what is returned.
_REFUSED = {
    *("rank_fields", "top_k", "truncate_prompt_tokens", "truncation_side"),
    *("use_activation", "chat_template", "mm_processor_kwargs"),
    *(*QUERY.choices, *DOCUMENTS.choices),
}
_RETURN = pydantic.AliasChoices("return_documents", "return_text")


class CompareBody(CutBody):
    """Documents to compare with one query, or with one each. 0 is no limit."""

    query: Documents | None = pydantic.Field(None, validation_alias=QUERY)
    documents: Documents = pydantic.Field(validation_alias=DOCUMENTS)
    raw_scores: bool = False
    max_tokens_per_query: pydantic.NonNegativeInt = 0
    max_tokens_per_doc: pydantic.NonNegativeInt = 0
    _sent: dict = pydantic.PrivateAttr()

    @pydantic.model_validator(mode="wrap")
    @classmethod
    def _check(cls, value, validate):
        if isinstance(value, dict):
            # Clients send null for what their users leave out.
            value = {name: x for name, x in value.items() if x is not None}
        body = validate(value)
        body._sent = value
        if (body.query is None) != (body.name(DOCUMENTS) == "pairs"):
            raise ValueError("needs a query and documents, or `pairs`")
        # TEI answers with a list, which cannot name what is ignored.
        listed = body.name(DOCUMENTS) == "texts"
        for name in unknown(body):
            if listed or name in _REFUSED:
                raise ValueError(f"`{name}` is not supported: leave it out")
        return body

    def name(self, names):
        """Return the name that was sent, of `QUERY` or `DOCUMENTS`, or None."""
        return next((x for x in names.choices if x in self._sent), None)

    def document(self, index):
        """Return a document as it was sent, a string as a text."""
        sent = _as_list(self._sent[self.name(DOCUMENTS)])
        return _as_input(sent[index])


class RerankBody(CompareBody):
    """Documents to sort."""

    top_n: pydantic.NonNegativeInt = 0
    return_documents: bool = pydantic.Field(False, validation_alias=_RETURN)


class AnswerBody(ModelBody):
    """A question about a picture."""

    image: str
    question: str
    top_k: pydantic.PositiveInt = 1


class FillBody(ModelBody):
    """A picture and a text about it that contains `<mask>`."""

    image: str
    text: str
    top_k: pydantic.PositiveInt = 1


class Row(Body, extra="forbid"):
    """The inputs of a task. Pictures have the format of `Input`."""

    image: str | None = None
    second_image: str | None = None
    text: str | None = None
    second_text: str | None = None


class PredictBody(ModelBody):
    """Rows for a task without a route of its own."""

    task: str
    inputs: Annotated[list[Row], pydantic.Field(min_length=1)]
    top_k: pydantic.PositiveInt = 1


class SearchBody(Input):
    """A query to the index: a text, a picture, or both."""

    top_k: Annotated[int, pydantic.Field(ge=1, le=1000)] = 10
    rerank: Annotated[int, pydantic.Field(ge=0, le=1000)] | None = None
