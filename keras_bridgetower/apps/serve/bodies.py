"""The bodies of requests: strict JSON, their fields, and nothing else.

A field that is not named here is refused by its name.
"""

from typing import Annotated
from typing import Literal

import fastapi
import fastapi.routing
import pydantic

from keras_bridgetower.apps.serve.errors import RequestError
from keras_bridgetower.files import parse_json


class _Request(fastapi.Request):
    async def json(self):
        body = await self.body()
        try:
            return parse_json(body, nan=False)
        except ValueError as error:
            problem = str(error)
        raise RequestError(
            400, f"The body must be JSON, encoded in UTF-8: {problem}."
        )


class JSONRoute(fastapi.routing.APIRoute):
    """A route whose body is parsed by `files.parse_json`."""

    def get_route_handler(self):
        handle = super().get_route_handler()

        async def strict(request):
            return await handle(_Request(request.scope, request.receive))

        return strict


class Body(pydantic.BaseModel):
    """A JSON object whose fields are all known.

    Numbers are no strings here, and strings no numbers.
    """

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)


class Input(Body):
    """A text, a picture, or a pair of both.

    A picture is base64, a `data:` URL, or the URL of an allowed host.
    """

    text: str | None = None
    image: str | None = None

    @pydantic.model_validator(mode="after")
    def _holds_something(self):
        if self.text is None and self.image is None:
            raise ValueError("`text` or `image` must be given, or both")
        return self


def _as_input(value):
    """A plain string is a text."""
    return {"text": value} if isinstance(value, str) else value


def _as_list(value):
    """One input alone is a list of one."""
    return [value] if isinstance(value, str | dict) else value


Inputs = Annotated[
    list[Annotated[Input, pydantic.BeforeValidator(_as_input)]],
    pydantic.Field(min_length=1),
]
Direction = Literal["Right", "Left"]
TopK = Annotated[int, pydantic.Field(ge=1)]


class EmbeddingsBody(Body):
    """Inputs to embed, as clients of OpenAI and the hosted service send them.

    With `truncate`, texts that are too long lose their end (`"Right"`) or
    their start (`"Left"`). Without it they are refused.
    """

    input: Annotated[Inputs, pydantic.BeforeValidator(_as_list)]
    model: str | None = None
    truncate: bool = False
    truncation_direction: Direction = "Right"
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = None


class TextPart(Body):
    """A text in the shape of OPEA's documents."""

    text: str


class ImagePart(Body):
    """A picture in the shape of OPEA's documents: a URL or base64."""

    url: str | None = None
    base64_image: str | None = None

    @pydantic.model_validator(mode="after")
    def _holds_one(self):
        if (self.url is None) == (self.base64_image is None):
            raise ValueError("one of `url` and `base64_image` must be given")
        return self


class DocumentBody(Body):
    """A text, a picture or a pair, as OPEA's micro-service takes it."""

    text: str | TextPart | None = None
    image: ImagePart | None = None
    model: str | None = None

    @pydantic.model_validator(mode="after")
    def _holds_something(self):
        if self.text is None and self.image is None:
            raise ValueError("`text` or `image` must be given, or both")
        return self


def _shape_of(value):
    """Which of the two shapes of a body to embed this is."""
    if isinstance(value, DocumentBody):
        return "document"
    document = isinstance(value, dict) and {"text", "image"} & set(value)
    return "document" if document and "input" not in value else "input"


EitherBody = Annotated[
    Annotated[EmbeddingsBody, pydantic.Tag("shape:input")]
    | Annotated[DocumentBody, pydantic.Tag("shape:document")],
    pydantic.Discriminator(lambda value: f"shape:{_shape_of(value)}"),
]


class EncodeBody(Body):
    """A text, or a pair with a picture in base64, as OPEA's model server."""

    text: str
    img_b64_str: str | None = None
    model: str | None = None


class RerankBody(Body):
    """Documents, all texts or all pictures, to order by a query."""

    query: Annotated[Input, pydantic.BeforeValidator(_as_input)]
    documents: Inputs
    model: str | None = None
    top_n: TopK | None = None
    return_documents: bool = False


class Pair(Body):
    """A picture and a text."""

    image: str
    text: str


class ScoreBody(Body):
    """Pairs whose match is asked for."""

    pairs: Annotated[list[Pair], pydantic.Field(min_length=1)]
    model: str | None = None


class AnswerBody(Body):
    """A question about a picture."""

    image: str
    question: str
    model: str | None = None
    top_k: TopK = 1


class FillBody(Body):
    """A text about a picture, with `<mask>` in it."""

    image: str
    text: str
    model: str | None = None
    top_k: TopK = 1


class Row(Body):
    """The inputs of a task. Pictures are as in `Input`."""

    image: str | None = None
    second_image: str | None = None
    text: str | None = None
    second_text: str | None = None


class PredictBody(Body):
    """Rows for a task without a route of its own."""

    task: str
    inputs: Annotated[list[Row], pydantic.Field(min_length=1)]
    model: str | None = None
    top_k: TopK = 1


class SearchBody(Body):
    """What to look for in the index: a text, a picture, or both."""

    text: str | None = None
    image: str | None = None
    top_k: Annotated[int, pydantic.Field(ge=1, le=1000)] = 10
    rerank: Annotated[int, pydantic.Field(ge=0, le=1000)] = 128

    @pydantic.model_validator(mode="after")
    def _holds_something(self):
        if self.text is None and self.image is None:
            raise ValueError("`text` or `image` must be given, or both")
        return self
