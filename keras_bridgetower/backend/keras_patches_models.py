"""Where a method of Keras' models is replaced that is not public."""

import keras


class NotCloned(keras.Model):
    """Abstract: refuses `clone_model`, which would make a plain model of it.

    It alone runs through the graph of a model that has a `call` of its own.
    """

    def _run_through_graph(self, *args, **kwargs):
        if not vars(self).get("built"):
            return super()._run_through_graph(*args, **kwargs)
        raise NotImplementedError(
            "A task is more than its graph. Copy it by `copy.deepcopy(model)`, "
            "or without its weights by `type(model).from_config("
            f"model.get_config())`. Received: model={self.name}"
        )
