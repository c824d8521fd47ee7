"""Saves which weights of a model are frozen, and freezes them again.

A configuration lists them by number and name, such as `["3 kernel"]`. Presets
have no such list: models loaded from presets are fully trainable.
"""

import logging

from keras_bridgetower.backend import precision
from keras_bridgetower.backend.keras_private.layers import layers_in
from keras_bridgetower.backend.keras_private.layers import weights_to_train

_LOG = logging.getLogger(__name__)
# Keys of a configuration, which are absent if they do not apply.
FROZEN = "frozen_weights"
MERGED = "adapters_merged"
STATE = (FROZEN, MERGED)
# Keys that are not saved in a preset.
KEYS = (*STATE, "trainable")


def frozen_state(model):
    """Return the frozen weights of a layer or model for its configuration.

    Args:
        model: a built layer or model.

    Returns:
        dict: `FROZEN`, a list of weights by number and name; or `MERGED`, True
        if LoRA adapters were enabled. They are saved merged, and freezing the
        same weights again would leave nothing to train. Empty if no weight is
        frozen.
    """
    layers = [model, *layers_in(model)]
    if any(getattr(layer, "lora_enabled", False) for layer in layers):
        return {MERGED: True}
    numbered = _numbered(model)
    frozen = [place for place, weight in numbered if not weight.trainable]
    return {FROZEN: frozen} if frozen else {}


def restore(model, saved, parts=()):
    """Freeze the weights that `frozen_state` returned; warn of merged adapters.

    Args:
        model: a built layer or model of the same structure.
        saved: dict, as returned by `frozen_state`.
        parts: tuple of layers that have weights of the model but are not
            tracked by it.

    Raises:
        ValueError: the model has no weight of that number and name.
    """
    if saved.get(MERGED):
        _LOG.warning(
            "LoRA adapters of this model were merged into its weights when it "
            "was saved or copied. All weights are trainable now. Call "
            "`enable_lora(rank)` again, or freeze layers yourself."
        )
    numbered = dict(_numbered(model))
    frozen = set()
    for place in saved.get(FROZEN) or ():
        if place not in numbered:
            raise ValueError(
                "The weights must be those that were saved. Received: the "
                f"frozen weight {place!r:.100}, which is not there"
            )
        frozen.add(id(numbered[place]))
    if not frozen:
        return
    # Outer layers first, because freezing a layer freezes its inner layers.
    layers = [(la, _weights_in(la)) for la in layers_in(model)]
    layers += [(part, _weights_in(part)) for part in parts]
    for layer, weights in sorted(layers, key=lambda pair: -len(pair[1])):
        trained = not weights or any(id(w) not in frozen for w in weights)
        if layer.trainable != trained:
            layer.trainable = trained
    for weight in numbered.values():
        if weight.trainable != (id(weight) not in frozen):
            weight.trainable = id(weight) not in frozen


def _numbered(model):
    """Return the trainable weights as pairs of a numbered name and a weight."""
    weights = sorted(
        _weights_in(model), key=lambda w: precision.natural(w.path)
    )
    return [(f"{i} {w.name}", w) for i, w in enumerate(weights)]


def _weights_in(layer):
    """Return the weights in a layer, at any depth, that can be trained."""
    layers = [layer, *layers_in(layer)]
    found = {
        id(weight): weight for one in layers for weight in weights_to_train(one)
    }
    return list(found.values())
