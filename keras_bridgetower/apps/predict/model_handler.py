"""A task as a model handler of Apache Beam's `RunInference`."""

from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler

from keras_bridgetower.apps.predict import shards
from keras_bridgetower.apps.predict.batches import results_of
from keras_bridgetower.apps.predict.identity import sum_of
from keras_bridgetower.apps.predict.verbs import open_task


class BridgeTowerModelHandler(ModelHandler):
    """Runs a task in `RunInference`: a list of rows to a list of results.

    `RunInference` loads the model once in each process of a worker. An element
    is a list of `Row`, so that one that is not readable spoils no other. Its
    result is the list of dicts that `results_of` makes. Needs `apache-beam`.

    Args:
        preset: str, as the `from_preset` of a task takes it. It must lead to
            the same preset on all workers.
        task: str, key of `VERBS`.
        top_k: int, answers or tokens of a row.
        batch_size: int, rows of a forward pass.
        model_sum: str, what `sum_of` says of the task, or None. A worker
            whose preset is another one fails.

    Example:

    ```python
    handler = BridgeTowerModelHandler("bridgetower_tiny_easy_vqa", "vqa")
    results = lists_of_rows | RunInference(handler)
    ```
    """

    def __init__(self, preset, task, top_k=1, batch_size=32, model_sum=None):
        super().__init__()
        self._preset, self._task = preset, task
        self._top_k, self._batch_size = top_k, batch_size
        self._model_sum = model_sum

    def load_model(self):
        """The task, opened from its preset."""
        task = open_task(self._task, self._preset)
        if self._model_sum and sum_of(task) != self._model_sum:
            raise ValueError(
                "`preset` must lead to the same weights on all machines. "
                f"Received: preset={self._preset!r}, which differs on this one"
            )
        return task

    def run_inference(self, batch, model, inference_args=None):
        """A list of results for each list of rows."""
        rows = Metrics.counter("keras_bridgetower", "rows")
        bad = Metrics.counter("keras_bridgetower", "unreadable_rows")
        for element in batch:
            results = []
            for some in results_of(
                model,
                self._task,
                element,
                self._top_k,
                self._batch_size,
                shards.read_picture,
            ):
                results += some
                rows.inc(len(some))
                bad.inc(sum("error" in result for result in some))
            yield results

    def batch_elements_kwargs(self):
        """One element at a time: it holds many rows."""
        return {"min_batch_size": 1, "max_batch_size": 1}

    def get_num_bytes(self, batch):
        """int, the rows of some elements; their bytes are not known."""
        return sum(map(len, batch))

    def get_metrics_namespace(self):
        """str, under which `RunInference` counts."""
        return "BridgeTower"
