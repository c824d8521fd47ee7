"""Records which weights of a model are frozen, and freezes them again.

A configuration names them by number and name, such as `["3 kernel"]`. A
preset has no such record: all weights of what it opens as are trained.
"""

import logging

from keras_bridgetower.backend import precision
from keras_bridgetower.backend.keras_private.layers import layers_in
from keras_bridgetower.backend.keras_private.layers import weights_to_train

_LOG = logging.getLogger(__name__)
# The keys of a configuration; each is absent where there is nothing to say.
FROZEN = "frozen_weights"
MERGED = "adapters_merged"
STATE = (FROZEN, MERGED)
# What a preset does not keep.
KEYS = (*STATE, "trainable")


def state_of(model):
    """What is frozen in a layer or model, for its configuration.

    Args:
        model: a built layer or model.

    Returns:
        dict: `FROZEN`, a list of weights, each by number and name, or
        `MERGED`, true where adapters of LoRA were on: they are saved merged,
        and what they froze would leave nothing to train. Empty if all weights
        are trained.
    """
    layers = [model, *layers_in(model)]
    if any(getattr(layer, "lora_enabled", False) for layer in layers):
        return {MERGED: True}
    numbered = _numbered(model)
    frozen = [place for place, weight in numbered if not weight.trainable]
    return {FROZEN: frozen} if frozen else {}


def restore(model, saved, parts=()):
    """Freeze what `state_of` named, and say where adapters were merged.

    Args:
        model: a built layer or model of the same structure.
        saved: dict, what `state_of` returned.
        parts: tuple of layers that hold weights of the model and are not
            among its layers.

    Raises:
        ValueError: other weights than those that were saved.
    """
    if saved.get(MERGED):
        _LOG.warning(
            "The adapters of LoRA of this model were merged into its weights "
            "when it was saved or copied. All its weights are trained now: "
            "call `enable_lora(rank)` again, or freeze what shall rest."
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
    # Parts before what they hold, as a part freezes all that it holds.
    layers = [(la, _weights_in(la)) for la in layers_in(model)]
    layers += [(part, _weights_in(part)) for part in parts]
    for layer, weights in sorted(layers, key=lambda held: -len(held[1])):
        trained = not weights or any(id(w) not in frozen for w in weights)
        if layer.trainable != trained:
            layer.trainable = trained
    for weight in numbered.values():
        if weight.trainable != (id(weight) not in frozen):
            weight.trainable = id(weight) not in frozen


def _numbered(model):
    """Weights that can be trained, each with its number and name."""
    weights = sorted(
        _weights_in(model), key=lambda w: precision.natural(w.path)
    )
    return [(f"{i} {w.name}", w) for i, w in enumerate(weights)]


def _weights_in(layer):
    """Weights in a layer, at any depth, that are trained unless frozen."""
    layers = [layer, *layers_in(layer)]
    found = {
        id(weight): weight for one in layers for weight in weights_to_train(one)
    }
    return list(found.values())
