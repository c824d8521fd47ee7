"""Routes `/v1/rerank` and `/v1/score`.

`/v1/rerank` returns the best documents first; `document` is present only with
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
from keras_bridgetower.apps.serve.bodies import ScoreBody
from keras_bridgetower.apps.serve.errors import RequestError
from keras_bridgetower.apps.serve.inputs import ToEmbed
from keras_bridgetower.apps.serve.inputs import ToMatch
from keras_bridgetower.apps.serve.service import check_count
from keras_bridgetower.apps.serve.service import read_inputs


def router(service):
    """Build the routes that score and rerank.

    Args:
        service: `Service`.
    """
    routes = fastapi.APIRouter(tags=["matching"], route_class=JSONRoute)

    @routes.post("/v1/score")
    async def score(body: ScoreBody) -> dict:
        """Return the logit of "match" of each pair; higher is better."""
        preset = service.presets.find(body.model, "score")
        check_count(service.limits, body.pairs, "pairs")
        inputs, params = [], []
        for index, pair in enumerate(body.pairs):
            name = f"pairs.{index}"
            fields = {"text": f"{name}.text", "image": f"{name}.image"}
            image = await service.pictures.read(pair.image, fields["image"])
            inputs.append(ToMatch(image, pair.text))
            params.append(fields)
        scores = await preset.ask("score", inputs, params)
        return {
            "object": "list",
            "data": [
                {"object": "score", "index": index, "score": score}
                for index, score in enumerate(scores)
            ],
            "model": body.model or preset.name,
        }

    @routes.post("/v1/rerank")
    async def rerank(body: RerankBody) -> dict:
        """Sort documents by relevance to a query, best first.

        The matching head scores a text with a picture; two texts or two
        pictures get the cosine of their vectors.
        """
        check_count(service.limits, body.documents, "documents")
        query = _kind(body.query, "query")
        kinds = {
            _kind(document, f"documents.{index}")
            for index, document in enumerate(body.documents)
        }
        if len(kinds) > 1:
            raise RequestError(
                400,
                "documents: must be all texts or all pictures, since scores of "
                "both are not comparable.",
                "documents",
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
        raise RequestError(
            400, f"{param}: give `text` or `image`, not both.", param
        )
    return "image" if value.text is None else "text"


def _result(body, index, score):
    result = {"index": index, "relevance_score": score}
    if body.return_documents:
        document = body.documents[index].model_dump(exclude_none=True)
        result["document"] = document
    return result


async def _matches(service, body):
    """Score a text with pictures, or a picture with texts."""
    preset = service.presets.find(body.model, "score")
    [(text, image)], _ = await read_inputs(
        service, preset, [body.query], "query"
    )
    documents, params = await read_inputs(
        service, preset, body.documents, "documents"
    )
    inputs = [
        ToMatch(own_image or image, text if own_text is None else own_text)
        for own_text, own_image in documents
    ]
    # Each pair has a document and the query.
    of_query = {"image" if text is None else "text": "query"}
    params = [fields | of_query for fields in params]
    return preset, await preset.ask("score", inputs, params)


async def _cosines(service, body):
    """Return the cosines between a query and documents of the same kind."""
    preset = service.presets.find(body.model, "embed")
    query, _ = await read_inputs(service, preset, [body.query], "query")
    documents, params = await read_inputs(
        service, preset, body.documents, "documents"
    )
    inputs = [ToEmbed(text, image) for text, image in [*query, *documents]]
    of_query = dict.fromkeys(("text", "image"), "query")
    found = await preset.ask("embed", inputs, [of_query, *params])
    vectors = np.array([vector for vector, _ in found], "float32")
    return preset, (vectors[1:] @ vectors[0]).tolist()
