"""Overrides private methods of `keras.Model`."""

import keras


class NotCloned(keras.Model):
    """Abstract: refuses `clone_model`, which would return a plain model.

    Only `clone_model` runs through the graph of a model that has a `call` of
    its own, so the method it uses is overridden.
    """

    def _run_through_graph(self, *args, **kwargs):
        if not vars(self).get("built"):
            return super()._run_through_graph(*args, **kwargs)
        raise NotImplementedError(
            "A task is more than its graph. Copy it by `copy.deepcopy(model)`, "
            "or without its weights and its vocabulary by "
            "`type(model).from_config(model.get_config())`. "
            f"Received: model={self.name}"
        )
