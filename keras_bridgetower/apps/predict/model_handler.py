"""A task as a model handler of Apache Beam's `RunInference`."""

from apache_beam.ml.inference.base import ModelHandler

from keras_bridgetower.apps.predict.batches import run_rows
from keras_bridgetower.apps.predict.identity import model_checksum
from keras_bridgetower.tasks import by_name


class BridgeTowerModelHandler(ModelHandler):
    """Run a verb in `RunInference`, from a list of rows to a list of results.

    `RunInference` loads the model once in each process of a worker. An element
    is a list of `Row`. Its result is a list of dict, as `run_rows` yields
    them. Needs `apache-beam`.

    Args:
        preset: str, as the `from_preset` of a task takes it. It must name the
            same preset on all workers.
        task: str, the name of a `Verb`.
        top_k: int, answers or tokens per row.
        batch_size: int, rows per forward pass.
        model_sum: str, `model_checksum` of the task, or None. A worker whose
            preset differs fails.
    """

    def __init__(self, preset, task, top_k=1, batch_size=32, model_sum=None):
        super().__init__()
        self._preset, self._task = preset, task
        self._top_k, self._batch_size = top_k, batch_size
        self._model_sum = model_sum

    def load_model(self):
        task = by_name.open_verb(self._preset, self._task)
        if self._model_sum and model_checksum(task) != self._model_sum:
            raise ValueError(
                "`preset` must have the same weights on all machines. "
                f"Received: preset={self._preset!r}, which differs on this one"
            )
        return task

    def run_inference(self, batch, model, inference_args=None):
        """Yield a list of results for each list of rows."""
        _, verb = by_name.verbs()[self._task]
        for element in batch:
            results = run_rows(
                model, verb, element, self._top_k, self._batch_size
            )
            yield [result for some in results for result in some]

    def batch_elements_kwargs(self):
        """Pass one element at a time: it has many rows."""
        return {"min_batch_size": 1, "max_batch_size": 1}
