"""LoRA adapters of a backbone: enabling, saving, loading and merging them."""

import h5py
import keras
import keras_hub
import numpy as np

from keras_bridgetower.backend.keras_private.layers import layers_in
from keras_bridgetower.checks import check_count
from keras_bridgetower.models.exporting.exported import Exported

# As in the files of KerasHub.
_GROUP, _RANK, _ALPHA = "lora", "lora/vars/rank", "lora_alpha"
# Group of the heads that a task trains too.
_HEADS = "heads"
# Names of the weights that have adapters. The layer's property of this name
# returns the weight with its adapter added.
_ADAPTED = ("kernel", "embeddings")


class AdaptedBackbone(Exported, keras_hub.models.Backbone):
    """Abstract: a backbone whose LoRA file contains all trained weights.

    KerasHub's own class also trains the biases of adapted layers, but does
    not save them, nor adapters that were enabled on a single layer.
    """

    def enable_lora(self, rank, target_layer_names=None):
        """Add low-rank adapters to the attention and freeze all else.

        Call it before training starts.

        Args:
            rank: int from 1, rank of the adapters.
            target_layer_names: list of str, names of the layers to adapt. By
                default those of query and value.

        Raises:
            ValueError: a rank that is not a positive integer, no layer of
                these names, or adapters that are already enabled.
        """
        check_count("rank", rank)
        if _adapted_layers(self):
            raise ValueError(
                "`enable_lora` must be called once. Reload the preset to use "
                f"other adapters. Received: rank={rank}"
            )
        names = target_layer_names or self.default_lora_layer_names()
        chosen = [
            layer
            for layer in _weighted_layers(self)
            if layer.name in names and _takes_adapter(layer)
        ]
        if not chosen:
            raise ValueError(
                "`target_layer_names` must name layers such as query, key and "
                f"value. Received: target_layer_names={target_layer_names!r}"
            )
        self._adapt((layer, rank, None) for layer in chosen)

    def default_lora_layer_names(self):
        """Return the names of the layers of queries and values, a list."""
        # Those of DINOv3 have other names than KerasHub's usual ones.
        return [*super().default_lora_layer_names(), "q_proj", "v_proj"]

    def save_lora_weights(self, filepath):
        """Save all adapters, whether enabled here or on single layers.

        A task's own method saves its heads too.

        Args:
            filepath: path of the new file.

        Raises:
            ValueError: no adapters.
        """
        adapted = _adapted_layers(self)
        if not adapted:
            raise ValueError("There are no adapters to save.")
        with h5py.File(filepath, "w") as file:
            file[_RANK] = next(iter(adapted.values())).lora_rank
            for index, layer in adapted.items():
                group = file.create_group(f"{_GROUP}/{index}/vars")
                group.attrs[_ALPHA] = layer.lora_alpha
                for name, variable in _factors(layer).items():
                    group[name] = _float32(variable)

    def load_lora_weights(self, filepath):
        """Load a file of `save_lora_weights`.

        If the backbone has no adapters yet, those of the file are added and
        all other weights are frozen.

        Args:
            filepath: path of the file.

        Raises:
            ValueError: the backbone has other layers or adapters than the
                saved one.
        """
        self._load_adapters(filepath)

    def _load_adapters(self, filepath, heads=False):
        layers = _weighted_layers(self)
        saved = {}
        with h5py.File(filepath) as file:
            if _HEADS in file and not heads:
                raise ValueError(
                    "`filepath` holds the heads of a task too: use the task's "
                    f"`load_lora_weights`. Received: filepath={filepath}"
                )
            for index, group in file[_GROUP].items():
                if index != "vars":
                    factors = {
                        k: np.asarray(x) for k, x in group["vars"].items()
                    }
                    alpha = group["vars"].attrs.get(_ALPHA, _rank(factors))
                    saved[int(index)] = factors, float(alpha)
        known = all(
            i < len(layers) and _takes_adapter(layers[i]) for i in saved
        )
        if known and not _adapted_layers(self):
            self._adapt((layers[i], _rank(x), a) for i, (x, a) in saved.items())
        adapted = _adapted_layers(self)
        found = {
            index: _shapes(factors) for index, (factors, _) in saved.items()
        }
        if found != {i: _shapes(_factors(la)) for i, la in adapted.items()}:
            raise ValueError(
                "`filepath` must hold adapters of the same layers and ranks. "
                f"Received: filepath={filepath}"
            )
        for index, layer in adapted.items():
            factors, layer.lora_alpha = saved[index]
            for name, variable in _factors(layer).items():
                variable.assign(factors[name])

    def _adapt(self, chosen):
        """Add adapters to layers and freeze all other weights.

        Args:
            chosen: iterable of `(layer, rank, alpha)`; None means the rank.
        """
        self.trainable = True
        for layer in layers_in(self):
            layer.trainable = False
        for layer, rank, alpha in chosen:
            layer.trainable = True
            layer.enable_lora(rank, alpha)
            if getattr(layer, "bias", None) is not None:
                # `save_lora_weights` saves no biases, so they are frozen.
                layer.bias.trainable = False


def save_with_heads(task, filepath):
    """Save the adapters of a task's backbone, and its heads."""
    task.backbone.save_lora_weights(filepath)
    with h5py.File(filepath, "a") as file:
        for name, weight in _head_weights(task).items():
            file[name] = _float32(weight)


def load_with_heads(task, filepath):
    """Load a file of `save_with_heads`."""
    weights = _head_weights(task)
    with h5py.File(filepath) as file:
        saved = {
            f"{_HEADS}/{head}/{index}": np.asarray(value)
            for head, values in file.get(_HEADS, {}).items()
            for index, value in values.items()
        }
    if _shapes(saved) != _shapes(weights):
        raise ValueError(
            f"`filepath` must hold the heads {[*task.heads]}, of the same "
            f"sizes. Received: filepath={filepath} with {_shapes(saved)}"
        )
    task.backbone._load_adapters(filepath, heads=True)
    for name, weight in weights.items():
        weight.assign(saved[name])


def merged_weights(model):
    """List the paths and values of weights, with adapters merged in.

    Args:
        model: a built layer or model that is not quantized.

    Returns:
        list of `(path, value)` in the order of the model's weights, without
        those of adapters. A value is the variable itself, or a tensor if the
        weight has an adapter.
    """
    merged, adapters = {}, set()
    for layer in (model, *layers_in(model)):
        if not getattr(layer, "lora_enabled", False):
            continue
        for weight in layer.weights:
            name = weight.path.rpartition("/")[2]
            if name in _ADAPTED:
                merged[id(weight)] = getattr(layer, name)
            elif name.startswith("lora_"):
                adapters.add(id(weight))
    return [
        (weight.path, merged.get(id(weight), weight))
        for weight in model.weights
        if id(weight) not in adapters
    ]


def _head_weights(task):
    """Return a dict from the name in a file to each weight of the heads."""
    return {
        f"{_HEADS}/{name}/{index}": weight
        for name in task.heads
        for index, weight in enumerate(task.heads[name].weights)
    }


def _float32(variable):
    values = keras.ops.cast(variable, "float32")
    return keras.ops.convert_to_numpy(values)


def _takes_adapter(layer):
    return hasattr(layer, "enable_lora") and not isinstance(layer, keras.Model)


def _weighted_layers(backbone):
    # KerasHub's files number these layers, because names are not unique.
    return [la for la in layers_in(backbone) if la.weights]


def _adapted_layers(backbone):
    """Return a dict from the number to the layer, of layers with adapters."""
    layers = enumerate(_weighted_layers(backbone))
    return {i: la for i, la in layers if getattr(la, "lora_enabled", False)}


def _factors(layer):
    """Return a dict from name to variable: the matrices of an adapter."""
    named = {w.path.split("/")[-1]: w for w in layer.weights}
    return {k: w for k, w in named.items() if k.startswith("lora_")}


def _shapes(weights):
    return {name: tuple(weight.shape) for name, weight in weights.items()}


def _rank(factors):
    return next(x for n, x in factors.items() if n.endswith("_a")).shape[-1]
