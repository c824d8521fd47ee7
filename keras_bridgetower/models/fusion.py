"""The fusion: a cross-modal encoder that joins the states of both towers.

Each cross-modal layer gets one state of a tower through a bridge, or all states
through a manager; `layer_input` does either.
"""

import keras
from keras import ops

from keras_bridgetower import checks
from keras_bridgetower.backend import layer_records
from keras_bridgetower.models import bridges
from keras_bridgetower.models.attention import dense
from keras_bridgetower.models.attention import initializer
from keras_bridgetower.models.attention import layer_norm
from keras_bridgetower.models.checks import sizes_differ
from keras_bridgetower.models.cross_modal import CROSS_ENCODERS
from keras_bridgetower.models.managers import FirstManager
from keras_bridgetower.models.managers import ManagerLayer
from keras_bridgetower.models.towers import resolve_taps

OUTPUTS = ("text", "image", "pooled")
# Rows of the type embedding.
TEXT_ROW, IMAGE_ROW, SECOND_IMAGE_ROW, NUM_TYPE_ROWS = 0, 1, 2, 3


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class CrossModalEncoder(keras.layers.Layer):
    """Join lists of uni-modal states into one cross-modal representation.

    Each state is projected to width D, and the type embedding of its modality
    is added. The first state of a modality enters the first layer through a
    layer norm, each further state enters its layer through a bridge. A layer
    with `None` in `taps` gets no state. With a manager instead of bridges,
    every layer gets all states.

    Args:
        hidden_dim: int, width D.
        num_heads: int, attention heads; must divide `hidden_dim`.
        num_layers: int, number K of cross-modal layers per modality.
        intermediate_dim: int, feed-forward width. None means 4D.
        bridge: identifier of the bridge (see `bridges.get`); or
            `"static_manager"`, `"adaptive_manager"` or a subclass of
            `ManagerLayer`; or None for the two-tower baseline, in which the
            last states enter without a layer norm.
        taps: tuple of K entries, one for each layer: the index of the tower
            state that feeds it, counted from the top (negative), or None.
            Defaults to `(-K, ..., -1)`, and to `(-1, None, ...)` with
            `bridge=None`. With managers the states that all of them read, any
            number of indices without None.
        cross_encoder: `"co_attention"` or `"merged_attention"`.
        projections: `"shared"`: one projection per modality for all taps, or
            `"per_layer"`: one for each tap.
        dropout: float, dropout of the cross-modal layers.
        attention_dropout: float, dropout of their attention weights. None
            means `dropout`, as in the authors' code. With 0 attention uses a
            fused kernel in training, which is faster.
        layer_norm_epsilon: float, epsilon in the cross-modal layers.
        bridge_epsilon: float, epsilon in entries, bridges and managers.
        image_tokens: int, tokens of a picture that remain after merging
            (see `merge_tokens`); None merges none.

    Call arguments:
        text_states: list of float tensors `(batch, text tokens, width)`, one
            per tap, lowest first.
        image_states: list of float tensors `(batch, image tokens, width)`.
        padding_mask: optional int tensor `(batch, text tokens)`, 0 at padding.
        outputs: tuple of some of `"text"`, `"image"`, `"pooled"`. Only the
            tokens that they need are computed.
        image_row: int, row of the type embedding for the image states: 1, or
            2 for the second image of a pair.

    Returns:
        dict of `outputs`: `"text"` `(batch, text tokens, D)`, `"image"`
        `(batch, image tokens, D)`, `"pooled"` `(batch, 2D)`, the text's half
        first.

    Raises:
        ValueError: invalid or inconsistent arguments.

    Example:

    ```python
    fusion = CrossModalEncoder(16, num_heads=2, num_layers=2)
    text, image = np.ones((1, 4, 8)), np.ones((1, 10, 12))
    out = fusion([text, text], [image, image], outputs=("pooled",))
    out["pooled"].shape  # (1, 32)
    ```

    Source: BridgeTower (AAAI 2023); METER (CVPR 2022) for the baseline;
    ManagerTower (ACL 2023) for managers.
    """

    def __init__(
        self,
        hidden_dim,
        num_heads,
        num_layers,
        intermediate_dim=None,
        bridge="add",
        taps=None,
        cross_encoder="co_attention",
        projections="shared",
        dropout=0.1,
        attention_dropout=None,
        layer_norm_epsilon=1e-5,
        bridge_epsilon=1e-5,
        image_tokens=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if intermediate_dim is None:
            intermediate_dim = 4 * hidden_dim
        if attention_dropout is None:
            attention_dropout = dropout
        checks.check_choice(
            "cross_encoder", cross_encoder, tuple(CROSS_ENCODERS)
        )
        checks.check_choice("projections", projections, ("shared", "per_layer"))
        checks.check_count("num_layers", num_layers)
        if image_tokens is not None:
            checks.check_count("image_tokens", image_tokens)
        checks.check_share("dropout", dropout)
        checks.check_share("attention_dropout", attention_dropout)
        if hidden_dim % num_heads:
            raise ValueError(
                "`num_heads` must divide `hidden_dim`. Received: "
                f"hidden_dim={hidden_dim}, num_heads={num_heads}"
            )
        self.taps = resolve_taps(taps, num_layers, bridge)
        self.bridge = None if bridge is None else bridges.serialize(bridge)
        self.hidden_dim = hidden_dim
        self.num_heads = num_heads
        self.num_layers = num_layers
        self.intermediate_dim = intermediate_dim
        self.cross_encoder = cross_encoder
        self.projections = projections
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.layer_norm_epsilon = layer_norm_epsilon
        self.bridge_epsilon = bridge_epsilon
        self.image_tokens = image_tokens

        self.text_projections = self._make_projections("text")
        self.image_projections = self._make_projections("image")
        # The class of the managers, or None with bridges.
        cls = None if bridge is None else bridges.get_class(bridge)
        self.manager = cls if cls and issubclass(cls, ManagerLayer) else None
        # True if outputs at tokens depend on those at padding.
        self.reads_padding = bool(self.manager and self.manager.reads_padding)
        # Numbers of the layers that get states of the towers.
        self.tapped_layers = tuple(
            layer
            for layer in range(num_layers)
            if self.manager or self.taps[layer] is not None
        )
        self.text_entry = self._make_entry("text_entry")
        self.image_entry = self._make_entry("image_entry")
        self.text_bridges = self._make_bridges("text")
        self.image_bridges = self._make_bridges("image")
        self.steps = [
            CROSS_ENCODERS[cross_encoder](
                hidden_dim=hidden_dim,
                num_heads=num_heads,
                intermediate_dim=intermediate_dim,
                dropout=dropout,
                epsilon=layer_norm_epsilon,
                attention_dropout=attention_dropout,
                dtype=self.dtype_policy,
                name=f"layer_{layer}",
            )
            for layer in range(num_layers)
        ]
        self.text_pooler, self.image_pooler = (
            dense(self, hidden_dim, f"{side}_pooler", activation="tanh")
            for side in ("text", "image")
        )

    def build(
        self, text_states_shape, image_states_shape, padding_mask_shape=None
    ):
        self.type_embedding = self.add_weight(
            shape=(NUM_TYPE_ROWS, self.hidden_dim),
            initializer=initializer(),
            name="type_embedding",
        )
        tokens = image_states_shape[0][1]
        if None not in (self.image_tokens, tokens):
            if not 2 <= self.image_tokens < tokens:
                raise ValueError(
                    "`image_tokens` must be from 2 to below the number of "
                    f"tokens of a picture, {tokens}. Received: "
                    f"image_tokens={self.image_tokens}"
                )
        shapes = {"text": text_states_shape, "image": image_states_shape}
        projected = (None, None, self.hidden_dim)
        for side, states in shapes.items():
            projections = getattr(self, f"{side}_projections")
            widths = {state[-1] for state in states}
            if len(projections) == 1 and len(widths) > 1:
                raise ValueError(
                    "`projections` must be 'per_layer' for states of different "
                    f"widths. Received: projections={self.projections!r}, "
                    f"{side} states of widths {sorted(widths)}"
                )
            for projection, state in zip(projections, states, strict=False):
                projection.build(state)
            self._build_bridges(side, projected)
            getattr(self, f"{side}_pooler").build(projected[1:])
        for step in self.steps:
            step.build(projected, projected)

    def get_build_config(self):
        # For models of parts. A backbone saves its own state.
        layer_records.check_not_quantized(self, "A copy of the fusion alone")
        config = super().get_build_config()
        return config and {**config, **layer_records.frozen_state(self)}

    def build_from_config(self, config):
        shapes = {
            k: v for k, v in config.items() if k not in layer_records.STATE
        }
        super().build_from_config(shapes)
        layer_records.restore_frozen(self, config)

    def project_text(self, states):
        """Project text states and add the type embedding, for `join`."""
        return self._project("text", states, TEXT_ROW)

    def project_image(self, states, row=IMAGE_ROW):
        """Project image states, add the type embedding, and merge tokens."""
        states = self._project("image", states, row)
        count = self.image_tokens
        # Contrastive heads project the first token alone.
        if count is None or states[-1].shape[1] == 1:
            return states
        return merge_tokens(states, count)

    def call(
        self,
        text_states,
        image_states,
        padding_mask=None,
        outputs=OUTPUTS,
        image_row=IMAGE_ROW,
        training=None,
    ):
        return self.join(
            self.project_text(text_states),
            self.project_image(image_states, image_row),
            padding_mask,
            outputs,
            training,
        )

    def join(
        self,
        text_states,
        image_states,
        padding_mask=None,
        outputs=OUTPUTS,
        training=None,
    ):
        """Run the layers on the results of `project_text` and `project_image`.

        Projected states can be joined several times: ranking pairs each text
        with many images.
        """
        self._check_shapes(text_states, image_states, padding_mask)
        text = image = None
        for layer, step in enumerate(self.steps):
            # Both read what the layer before has returned.
            before = {"text": text, "image": image}
            text = self.layer_input(
                "text", layer, before, text_states, padding_mask, training
            )
            image = self.layer_input(
                "image", layer, before, image_states, None, training
            )
            text_query, image_query = text, image
            if layer == self.num_layers - 1:
                text_query = _last_query("text", text, outputs)
                image_query = _last_query("image", image, outputs)
            queries = text_query, image_query
            text, image = step(
                *queries, text, image, padding_mask, training=training
            )
        results = {"text": text, "image": image}
        results |= {"words": text_states[-1], "patches": image_states[-1]}
        if "pooled" in outputs:
            both = self.text_pooler(text[:, 0]), self.image_pooler(image[:, 0])
            results["pooled"] = ops.concatenate(both, axis=-1)
        return {name: results[name] for name in outputs}

    def compute_output_spec(
        self,
        text_states,
        image_states,
        padding_mask=None,
        outputs=OUTPUTS,
        **kwargs,
    ):
        # Keras would trace `call`; JAX cannot trace the strings in `outputs`.
        text, image = text_states[0].shape, image_states[0].shape
        tokens = self.image_tokens or image[1]
        shapes = {
            "text": (*text[:-1], self.hidden_dim),
            "image": (image[0], tokens, self.hidden_dim),
            "pooled": (text[0], 2 * self.hidden_dim),
        }
        shapes |= {"words": shapes["text"], "patches": shapes["image"]}
        return {
            name: keras.KerasTensor(shapes[name], dtype=self.compute_dtype)
            for name in outputs
        }

    def unread_layers(self, outputs):
        """Return the layers on which none of these outputs depends.

        Args:
            outputs: tuple of the names of the outputs that are read, if any.
        """
        if outputs == ("text",):
            poolers = [self.text_pooler, self.image_pooler]
            return poolers + list(self.steps[-1].image_only)
        return [] if outputs else [self]

    def reset_poolers(self):
        """Reinitialize the poolers, which matching may have saturated."""
        for pooler in (self.text_pooler, self.image_pooler):
            pooler.kernel.assign(initializer()(pooler.kernel.shape))
            pooler.bias.assign(ops.zeros(pooler.bias.shape))

    def _check_shapes(self, text_states, image_states, padding_mask):
        """Raise unless sizes agree: attention would broadcast them."""
        count = sum(tap is not None for tap in self.taps)
        text, image = (
            [tuple(x.shape[:2]) for x in side]
            for side in (text_states, image_states)
        )
        mask = [] if padding_mask is None else [tuple(padding_mask.shape)]
        if (len(text), len(image)) != (count, count) or any(
            sizes_differ(shape, (text[0][0], side[0][1]))
            for side in (text + mask, image)
            for shape in side
        ):
            raise ValueError(
                f"States must be lists of {count} tensors, `padding_mask` must "
                f"be (batch, tokens). Received: {text}, {image} and {mask}"
            )

    def layer_input(self, side, layer, before, states, mask, training):
        """Compute the input of a layer for one modality, from its states.

        The first state enters through a layer norm, each further one through a
        bridge. A manager reads all states. It reads no mask, as in the
        authors' code.

        Args:
            side: `"text"` or `"image"`.
            layer: int, number of the cross-modal layer, from 0.
            before: dict from side to the output of the layer before, a float
                tensor `(batch, tokens, D)`; None for layer 0.
            states: list of projected states of this modality, lowest first.
            mask: int tensor `(batch, tokens)`, 0 at padding, or None.
            training: bool.
        """
        own, bridge = before[side], getattr(self, f"{side}_bridges")[layer]
        if self.manager:
            other = before["image" if side == "text" else "text"]
            return bridge(states, own, other, training=training)
        if layer == 0:
            return getattr(self, f"{side}_entry")(states[0])
        if bridge is None:
            return own
        state = states[self.tapped_layers.index(layer)]
        return bridge(own, state, mask, training=training)

    def _make_entry(self, name):
        """Return the layer by which the first state enters, or None."""
        if self.manager:
            return None
        if self.bridge is None:
            return keras.layers.Identity(dtype=self.dtype_policy, name=name)
        return layer_norm(self, self.bridge_epsilon, name)

    def _make_bridges(self, side):
        """Return for each layer its bridge or manager, or None."""
        made = [None] * self.num_layers
        for layer in range(self.num_layers):
            name = f"{side}_{'manager' if self.manager else 'bridge'}_{layer}"
            named = {"dtype": self.dtype_policy, "name": name}
            if self.manager:
                made[layer] = (self.manager if layer else FirstManager)(
                    self.hidden_dim,
                    len(self.taps),
                    self.bridge_epsilon,
                    **named,
                )
            elif layer and self.taps[layer] is not None:
                made[layer] = bridges.get(
                    self.bridge,
                    self.hidden_dim,
                    self.num_heads,
                    self.attention_dropout,
                    self.bridge_epsilon,
                    **named,
                )
        return made

    def _build_bridges(self, side, shape):
        """Build the layers by which states enter, for inputs of this shape."""
        layers = getattr(self, f"{side}_bridges")
        if not self.manager:
            getattr(self, f"{side}_entry").build(shape)
            for bridge in filter(None, layers):
                bridge.build(shape, shape)
            return
        # It tells the states of a tower apart. Its name begins like that of
        # the other embedding, so that both are trained at the rate of the
        # towers (`training/optim/adamw.py`).
        embedding = self.add_weight(
            shape=(len(self.taps), self.hidden_dim),
            initializer=initializer(),
            name=f"type_embedding_{side}_layers",
        )
        setattr(self, f"{side}_layer_embedding", embedding)
        for manager in layers:
            manager.build([shape] * len(self.taps), shape, shape)

    def _project(self, side, states, row):
        projections = getattr(self, f"{side}_projections")
        typed = []
        for index, state in enumerate(states):
            # The list has a single projection if it is shared.
            x = projections[index % len(projections)](state)
            x = _add_row(x, self.type_embedding, row)
            if self.manager:
                table = getattr(self, f"{side}_layer_embedding")
                x = _add_row(x, table, index)
            typed.append(x)
        return typed

    def _make_projections(self, side):
        """Return one projection for all taps, or one for each."""
        tapped = sum(tap is not None for tap in self.taps)
        count = {"shared": 1, "per_layer": tapped}[self.projections]
        names = [f"{side}_projection_{i}" for i in range(count)]
        return [dense(self, self.hidden_dim, name) for name in names]


def _last_query(name, x, outputs):
    """Return the tokens that the last layer must compute for `outputs`."""
    if name in outputs:
        return x
    return x[:, :1] if "pooled" in outputs else None


def _add_row(x, table, row):
    """Add a row of an embedding to all tokens."""
    return with_weight(lambda x, t: x + ops.cast(t[row], x.dtype), x, table)


def with_weight(function, x, weight):
    """Apply a function to a tensor and a weight that some layer owns.

    Args:
        function: callable of `x` and `weight`.
        x: tensor; a symbolic one adds an operation to its graph.
        weight: `keras.Variable`.

    Returns:
        The result of `function`.
    """
    if isinstance(x, keras.KerasTensor):
        return WithWeight(function, weight)(x)
    return function(x, weight)


class WithWeight(keras.Operation):
    """The operation that `with_weight` adds to a graph.

    It is not a layer, so models keep the order of their layers and weights.
    """

    def __init__(self, function, weight):
        super().__init__()
        self.function, self.weight = function, weight

    def call(self, x):
        return self.function(x, self.weight)

    def get_config(self):
        raise NotImplementedError(
            "A functional model built on a task cannot be serialized. Save "
            f"the task, or weights alone. Received: {self.weight.path}"
        )


def merge_tokens(states, count):
    """Merge image tokens that are alike until `count` are left.

    Tokens are alike if their highest states have a large cosine. In each
    round every second token may join one of the others; the most similar
    pairs do. Each state of a token that is left is the mean of the states
    that were merged. The first token, which poolers read, stays alone.

    Args:
        states: list of float tensors `(batch, tokens, width)`, lowest first.
        count: int from 2, smaller than the number of tokens.

    Returns:
        list of float tensors `(batch, count, width)`.

    Example:

    ```python
    states = [np.random.normal(size=(1, 50, 8))]
    merge_tokens(states, 20)[0].shape  # (1, 20, 8)
    ```

    Source: Token Merging (Bolya et al., ICLR 2023): its bipartite matching,
    here between the towers and the fusion.
    """
    alike = means = ops.cast(states[-1], "float32")
    left, members = alike.shape[1], None
    while left > count:
        merged = min(left - count, left // 2)
        joined = _round(means, merged)
        members = joined if members is None else ops.matmul(joined, members)
        left -= merged
        means = _means(members, alike)
    return [_means(members, state) for state in states]


def _round(x, merged):
    """Return the matrix from tokens to those left after a round.

    Args:
        x: float tensor `(batch, tokens, width)`.
        merged: int, how many tokens join another one.

    Returns:
        float tensor `(batch, tokens - merged, tokens)` of 0 and 1.
    """
    length = x.shape[1]
    x = x / ops.maximum(ops.norm(x, axis=-1, keepdims=True), 1e-6)
    # Of tokens 1, 3, ... some join one of 2, 4, ...
    giving, taking = x[:, 1::2], x[:, 2::2]
    cosines = ops.matmul(giving, ops.transpose(taking, (0, 2, 1)))
    # By `top_k`, as ONNX has no stable sort.
    _, nearest = ops.top_k(ops.max(cosines, axis=-1), merged, sorted=False)
    nearest = ops.one_hot(nearest, giving.shape[1], dtype="float32")
    joins = ops.sum(nearest, axis=1)
    # New positions of those that stay, by counting them: all of 2, 4, ..., too.
    stays = _alternating(1 - joins, ops.ones_like(joins), length)
    positions = ops.cumsum(stays, axis=1)
    partners = ops.one_hot(
        ops.argmax(cosines, axis=-1), taking.shape[1], dtype="float32"
    )
    to = ops.matmul(partners, positions[:, 1::2, None])[:, :, 0]
    given = ops.where(joins > 0, to, positions[:, 0::2])
    taken = positions[:, 1::2]
    if taking.shape[1] < giving.shape[1]:
        taken = ops.pad(taken, ((0, 0), (0, 1)))
    positions = ops.pad(_alternating(given, taken, length), ((0, 0), (1, 0)))
    positions = ops.cast(positions, "int32")
    return ops.one_hot(positions, length - merged, axis=1, dtype="float32")


def _alternating(first, second, length):
    """Return the columns of two tensors in turn, `length - 1` of them."""
    both = ops.stack([first, second], axis=-1)
    return ops.reshape(both, (-1, 2 * first.shape[1]))[:, : length - 1]


def _means(members, x):
    """Return the means of merged tokens, `(batch, count, width)`."""
    shares = members / ops.sum(members, axis=-1, keepdims=True)
    return ops.matmul(ops.cast(shares, x.dtype), x)
