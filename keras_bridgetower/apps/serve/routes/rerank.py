"""Route `/v1/rerank`.

It returns the best documents first; `document` is present only with
`return_documents`:

```json
{
  "results": [
    {"index": 1, "relevance_score": 7.3, "document": {"text": "a red circle"}}
  ],
  "model": "bridgetower_tiny_easy_pretrain"
}
```
"""

import fastapi
import numpy as np

from keras_bridgetower.apps.serve.bodies import JSONRoute
from keras_bridgetower.apps.serve.bodies import RerankBody
from keras_bridgetower.apps.serve.errors import FieldError
from keras_bridgetower.apps.serve.inputs import ToEmbed
from keras_bridgetower.apps.serve.inputs import ToPredict


def router(service):
    """Build the route that reranks.

    Args:
        service: `Service`.
    """
    routes = fastapi.APIRouter(tags=["matching"], route_class=JSONRoute)

    @routes.post("/v1/rerank")
    async def rerank(body: RerankBody) -> dict:
        """Sort documents by relevance to a query, best first.

        The matching head scores a text with a picture; two texts or two
        pictures get the cosine of their vectors.
        """
        service.check_count(body.documents, "documents")
        query = _kind(body.query, "query")
        kinds = {
            _kind(document, f"documents.{index}")
            for index, document in enumerate(body.documents)
        }
        if len(kinds) > 1:
            raise FieldError(
                "documents",
                "must be all texts or all pictures, since scores of both are "
                "not comparable.",
            )
        compare = _cosines if kinds == {query} else _matches
        preset, scores = await compare(service, body)
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        return {
            "results": [
                _result(body, index, scores[index])
                for index in order[: body.top_n]
            ],
            "model": body.model or preset.name,
        }

    return routes


def _kind(value, param):
    """Return "text" or "image"; reject pairs."""
    if value.text is not None and value.image is not None:
        raise FieldError(param, "give `text` or `image`, not both.")
    return "image" if value.text is None else "text"


def _result(body, index, score):
    result = {"index": index, "relevance_score": score}
    if body.return_documents:
        document = body.documents[index].model_dump(exclude_none=True)
        result["document"] = document
    return result


async def _read(service, body, verb):
    """Return a preset, the query, and documents with their fields."""
    preset = service.preset(body.model, verb)
    [query], _ = await service.read_inputs(preset, [body.query], "query")
    documents, fields = await service.read_inputs(
        preset, body.documents, "documents"
    )
    return preset, query, documents, fields


async def _matches(service, body):
    """Score a text with pictures, or a picture with texts."""
    preset, (text, image), documents, fields = await _read(
        service, body, "score"
    )
    inputs = [
        ToPredict(
            image=image if own_image is None else own_image,
            text=text if own_text is None else own_text,
        )
        for own_text, own_image in documents
    ]
    # Each pair has a document and the query.
    of_query = {"image" if text is None else "text": "query"}
    fields = [names | of_query for names in fields]
    found = await preset.ask("score", inputs, fields)
    return preset, [result["score"] for result in found]


async def _cosines(service, body):
    """Return the cosines between a query and documents of the same kind."""
    preset, query, documents, fields = await _read(service, body, "embed")
    inputs = [ToEmbed(text, image) for text, image in [query, *documents]]
    of_query = dict.fromkeys(("text", "image"), "query")
    found = await preset.ask("embed", inputs, [of_query, *fields])
    vectors = np.array([vector for vector, _ in found], "float32")
    return preset, (vectors[1:] @ vectors[0]).tolist()
