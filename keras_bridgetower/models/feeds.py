"""Feeds: what a modality passes to its cross-modal layers.

Either each layer gets one state of the tower, through a bridge, or each gets
all of them, through a manager. `CrossModalEncoder` has one feed per modality.
A feed is a plain object: the fusion owns its layers and weights.
"""

import keras

from keras_bridgetower.models import bridges
from keras_bridgetower.models.attention import initializer
from keras_bridgetower.models.attention import layer_norm
from keras_bridgetower.models.managers import FirstManager
from keras_bridgetower.models.managers import ManagerLayer


class Bridges:
    """One state for each layer that has a tap.

    The first state enters through a layer norm, each further one through a
    bridge. Without bridges the only state is passed unchanged.

    Args:
        fusion: the `CrossModalEncoder`, with its values.
        side: `"text"` or `"image"`.

    Call arguments:
        layer: int, number of the cross-modal layer, from 0.
        own, other: float tensors `(batch, tokens, D)`, the outputs of the
            layer before, of this modality and of the other one; None for
            layer 0.
        states: list of projected states of this modality, lowest first.
        mask: int tensor `(batch, tokens)`, 0 at padding, or None.
        training: bool.

    Returns:
        Float tensor `(batch, tokens, D)`, the input of the layer.
    """

    # The layer embedding, which bridges do not have.
    embedding = None
    # True if outputs at tokens depend on those at padding.
    reads_padding = False

    def __init__(self, fusion, side):
        self.taps, name = fusion.taps, f"{side}_entry"
        if fusion.bridge is None:
            dtype = fusion.dtype_policy
            self.entry = keras.layers.Identity(dtype=dtype, name=name)
        else:
            self.entry = layer_norm(fusion, fusion.bridge_epsilon, name)
        self.layers = [
            bridges.get(
                fusion.bridge,
                fusion.hidden_dim,
                fusion.num_heads,
                fusion.attention_dropout,
                fusion.bridge_epsilon,
                dtype=fusion.dtype_policy,
                name=f"{side}_bridge_{layer}",
            )
            if layer and tap is not None
            else None
            for layer, tap in enumerate(fusion.taps)
        ]

    def build(self, shape):
        """Build the layers, for inputs of this shape."""
        self.entry.build(shape)
        for bridge in filter(None, self.layers):
            bridge.build(shape, shape)

    def __call__(self, layer, own, other, states, mask, training):
        if layer == 0:
            return self.entry(states[0])
        bridge = self.layers[layer]
        if bridge is None:
            return own
        state = states[sum(tap is not None for tap in self.taps[:layer])]
        return bridge(own, state, mask, training=training)

    def reads_tower(self, layer):
        """Return True if a layer gets states of the tower."""
        return self.taps[layer] is not None


class Managers:
    """All tapped states for each layer, through a manager of its own.

    A layer embedding, with one row for each state, distinguishes them.

    Args, call arguments and result are those of `Bridges`. Managers read no
    mask, as in the authors' code.
    """

    # There is no layer norm before the first manager.
    entry = None

    def __init__(self, fusion, side):
        self.fusion, self.side = fusion, side
        manager = bridges.get_class(fusion.bridge)
        self.layers = [
            (manager if layer else FirstManager)(
                fusion.hidden_dim,
                len(fusion.taps),
                fusion.bridge_epsilon,
                dtype=fusion.dtype_policy,
                name=f"{side}_manager_{layer}",
            )
            for layer in range(fusion.num_layers)
        ]
        self.reads_padding = any(x.reads_padding for x in self.layers)

    def build(self, shape):
        """Build the layers, for inputs of this shape."""
        count = len(self.fusion.taps)
        self.embedding = self.fusion.add_weight(
            shape=(count, self.fusion.hidden_dim),
            initializer=initializer(),
            # It begins like the name of the other embedding, so that both are
            # trained at the rate of the towers (`training/optim/adamw.py`).
            name=f"type_embedding_{self.side}_layers",
        )
        for manager in self.layers:
            manager.build([shape] * count, shape, shape)

    def __call__(self, layer, own, other, states, mask, training):
        return self.layers[layer](states, own, other, training=training)

    def reads_tower(self, layer):
        """Return True if a layer gets states of the tower."""
        return True


def feeds(fusion):
    """Return the feeds of text and image, by the value of `bridge`."""
    bridge = fusion.bridge and bridges.get_class(fusion.bridge)
    managed = bridge is not None and issubclass(bridge, ManagerLayer)
    feed = Managers if managed else Bridges
    return feed(fusion, "text"), feed(fusion, "image")
