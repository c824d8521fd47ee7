"""Schemas of request bodies, in strict JSON. Unknown fields are rejected."""

from typing import Annotated
from typing import Literal

import fastapi
import fastapi.routing
import pydantic

from keras_bridgetower.apps.serve.errors import RequestError
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
    """A JSON object without unknown fields or conversions of types."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)


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


Inputs = Annotated[
    list[Annotated[Input, pydantic.BeforeValidator(_as_input)]],
    pydantic.Field(min_length=1),
]
TopK = Annotated[int, pydantic.Field(ge=1)]


class EmbeddingsBody(ModelBody):
    """Inputs to embed, as clients of OpenAI and the hosted service send them.

    With `truncate`, long texts are cut at the end (`"Right"`) or at the start
    (`"Left"`). Otherwise they are rejected.
    """

    input: Annotated[Inputs, pydantic.BeforeValidator(_as_list)]
    truncate: bool = False
    truncation_direction: Literal["Right", "Left"] = "Right"
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = None


def _as_document(value):
    """Read a plain string as a text, or as a picture in a `data:` URL."""
    if isinstance(value, str) and value.startswith("data:image/"):
        return {"image": value}
    return _as_input(value)


Document = Annotated[Input, pydantic.BeforeValidator(_as_document)]


class RerankBody(ModelBody):
    """A query, and the documents to rank: all texts or all pictures.

    Jina's and Cohere's clients send both as strings. There a picture is a
    `data:` URL.
    """

    query: Document
    documents: Annotated[list[Document], pydantic.Field(min_length=1)]
    top_n: TopK | None = None
    return_documents: bool = False


class RerankTextsBody(Body):
    """A query and documents, as text-embeddings-inference reads them."""

    query: str
    texts: Annotated[list[str], pydantic.Field(min_length=1)]
    raw_scores: bool = False
    return_text: bool = False


class Pair(Body):
    """A picture and a text."""

    image: str
    text: str


class ScoreBody(ModelBody):
    """Pairs to score."""

    pairs: Annotated[list[Pair], pydantic.Field(min_length=1)]


class AnswerBody(ModelBody):
    """A question about a picture."""

    image: str
    question: str
    top_k: TopK = 1


class FillBody(ModelBody, Pair):
    """A picture and a text about it that contains `<mask>`."""

    top_k: TopK = 1


class Row(Body):
    """The inputs of a task. Pictures have the format of `Input`."""

    image: str | None = None
    second_image: str | None = None
    text: str | None = None
    second_text: str | None = None


class PredictBody(ModelBody):
    """Rows for a task without a route of its own."""

    task: str
    inputs: Annotated[list[Row], pydantic.Field(min_length=1)]
    top_k: TopK = 1


class SearchBody(Input):
    """A query to the index: a text, a picture, or both."""

    top_k: Annotated[int, pydantic.Field(ge=1, le=1000)] = 10
    rerank: Annotated[int, pydantic.Field(ge=0, le=1000)] | None = None
