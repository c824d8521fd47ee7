"""AdamW with rows: a rate and a decay for every variable, by its path."""

import re

import keras
from keras import ops

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.backend import keras_patches_updates

# The authors' three groups. Their membership goes by substrings of names, so
# that the type embedding, the contrastive scale and the ranking head, whose
# names have none, learn at the base rate.
_HEADS = r"^(?!rank_head/)[a-z0-9_]+_head/(?!logit_scale)"
_FUSION = r"^fusion/(?!type_embedding)"
_OTHERS = f"^(?!{_HEADS[1:]}|{_FUSION[1:]})"
# Not every task has all of them, or trains them.
_GROUPS = (_OTHERS, _FUSION, _HEADS)

# No decay, as the authors applied it: what contains "bias" or a form of
# "norm.weight", such as "norm1.weight" in ViT and DeiT. CLIP's layer norms
# (ln_1, ...) and those in the classifiers have other names there and decay, as
# do embeddings and scales.
AUTHORS_NO_DECAY = (
    r"(bias|beta)$",
    r"^(vit|deit)_encoder/(transformer_block_\d+/ln_[12]|ln)/gamma$",
    r"^(embeddings|transformer_layer_\d+/\w+)_layer_norm/gamma$",
    r"^fusion/.*gamma$",
    r"^mlm_head/.*gamma$",
)
# What is no matrix of a layer: norms, biases, scales and embeddings of
# positions and types.
SANE_NO_DECAY = (
    r"(bias|beta|gamma|logit_scale|class_embedding|type_embedding)$",
    r"position_embedding/embeddings$",
)
DECAYS = {"authors": AUTHORS_NO_DECAY, "sane": SANE_NO_DECAY}


def rows(base=1.0, fusion=1.0, head=1.0):
    """The authors' three groups as rows of an `AdamW`.

    Args:
        base: float, factor of the learning rate for both towers, the type
            embedding and scales, or None to freeze them.
        fusion: float, that for projections, entries, bridges, cross-modal
            layers and poolers, or None.
        head: float, that for the heads, or None.

    Returns:
        tuple of `(pattern, factor)`.

    Example:

    ```python
    AdamW(1e-5, rows=rows(fusion=5, head=50), decay="authors")
    ```
    """
    return tuple(zip(_GROUPS, (base, fusion, head), strict=True))


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class AdamW(keras.optimizers.Optimizer):
    """Adam with decoupled weight decay and rows of learning rates.

    Every variable must match exactly one row. `learning_rate`, clipping by
    the global norm, accumulation, averages and loss scaling are Keras' own.
    A gradient that is not finite is never applied: nothing but the count of
    steps changes, and `skipped` counts it. Among gradients that are
    accumulated it counts as zero. Schedules count updates.

    Args:
        learning_rate: float or schedule, the rate of a row of factor 1.
        rows: tuple of `(pattern, factor)`: a regular expression, searched in
            the variables' paths, and the factor of the learning rate. None
            as a factor freezes: no update, no decay, no part in the norm.
        weight_decay: float, times the row's rate.
        decay: which variables do not decay: `"authors"` (as their lists of
            names did), `"sane"` (all that is no matrix of a layer), or a
            tuple of patterns.
        beta_1, beta_2, epsilon: floats, the authors' values by default.
        **kwargs: as `keras.optimizers.Optimizer`: `global_clipnorm`,
            `gradient_accumulation_steps`, `use_ema`, `loss_scale_factor`.

    Raises:
        ValueError: variables without a row or with two, rows but the
            authors' without a variable; it lists them.

    Example:

    ```python
    optimizer = AdamW(
        WarmupPolynomial(1e-5, total_steps=1000), rows=rows(5, 50))
    ```

    Source: the authors' six parameter groups (`set_schedule`).
    """

    def __init__(
        self,
        learning_rate=1e-5,
        rows=((".*", 1.0),),
        weight_decay=0.01,
        decay="authors",
        beta_1=0.9,
        beta_2=0.98,
        epsilon=1e-8,
        name="adamw",
        **kwargs,
    ):
        # Keras' own decay knows one rate; ours follows the rows.
        super().__init__(learning_rate, name=name, **kwargs)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        self.rows = tuple((pattern, factor) for pattern, factor in rows)
        self.row_decay = weight_decay
        self.decay = decay if isinstance(decay, str) else tuple(decay)
        if isinstance(decay, str) and decay not in DECAYS:
            raise ValueError(
                f"`decay` must be one of {', '.join(DECAYS)}, or a tuple of "
                f"patterns. Received: decay={decay!r}"
            )

    def build(self, variables):
        if self.built:
            return
        variables = list(variables)
        super().build(variables)
        # Kept beside what Keras tracks: they are the model's.
        object.__setattr__(self, "_built_for", variables)
        self._momentums, self._velocities = self.add_optimizer_variables(
            variables, ["momentum", "velocity"]
        )
        # For models that are no tasks of ours, whose `compile` does it.
        keras_patches_updates.count_updates(self)
        self.skipped = self.add_variable((), dtype="int32", name="skipped")
        self._factors = factors_of(variables, self.rows)
        no_decay = DECAYS.get(self.decay, self.decay)
        kept = [
            any(re.search(pattern, v.path) for pattern in no_decay)
            for v in variables
        ]
        self._decays = [0.0 if k else self.row_decay for k in kept]

    def apply(self, grads, trainable_variables=None):
        variables = trainable_variables
        if variables is None:
            variables = self._built_for
        variables = list(variables)
        with keras.name_scope(self.name, caller=self):
            self.build(variables)
        learns = [self._factor_of(v) is not None for v in variables]
        grads = [g for g, kept in zip(grads, learns, strict=True) if kept]
        variables = [
            v for v, kept in zip(variables, learns, strict=True) if kept
        ]
        grads, finite = _finite(grads)
        self.skipped.assign_add(1 - ops.cast(finite, "int32"))
        # What is accumulated is zero where it was not finite, and the update
        # of the others goes on.
        self._kept = 1.0 if self.gradient_accumulation_steps else finite
        super().apply(grads, variables)
        self._kept = None

    def _factor_of(self, variable):
        return self._factors[self._get_variable_index(variable)]

    def update_step(self, gradient, variable, learning_rate):
        index, dtype = self._get_variable_index(variable), variable.dtype
        gradient = ops.cast(gradient, dtype)
        alpha, decay, kept = self._step_of(index, dtype, learning_rate)
        if decay is not None:
            self.assign_sub(variable, variable * decay)
        m, v = self._momentums[index], self._velocities[index]
        self.assign_add(m, (gradient - m) * (kept * (1 - self.beta_1)))
        self.assign_add(
            v, (ops.square(gradient) - v) * (kept * (1 - self.beta_2))
        )
        self.assign_sub(variable, m * alpha / (ops.sqrt(v) + self.epsilon))

    def _step_of(self, index, dtype, learning_rate):
        """What a variable's update takes besides its own tensors."""
        kept = ops.cast(self._kept, dtype)
        rate = ops.cast(learning_rate, dtype) * self._factors[index] * kept
        steps = ops.cast(self.iterations + 1, dtype)
        bias_1 = 1 - ops.power(ops.cast(self.beta_1, dtype), steps)
        bias_2 = 1 - ops.power(ops.cast(self.beta_2, dtype), steps)
        alpha = rate * ops.sqrt(bias_2) / bias_1
        decay = self._decays[index]
        return alpha, rate * decay if decay else None, kept

    def _backend_update_step(self, grads, variables, learning_rate):
        # As Keras' own optimizers on PyTorch: many variables at once.
        if keras.config.backend() != "torch":
            super()._backend_update_step(grads, variables, learning_rate)
            return
        from keras_bridgetower.training.optim import adamw_torch

        alike = {}
        for gradient, variable in zip(grads, variables, strict=True):
            index, dtype = self._get_variable_index(variable), variable.dtype
            own = (self._momentums[index], self._velocities[index])
            tensors = [v.value for v in (variable, *own)]
            tensors.insert(1, ops.cast(gradient, dtype))
            key = (self._factors[index], self._decays[index], dtype)
            alike.setdefault(key, (index, []))[1].append(tensors)
        for (*_, dtype), (index, tensors) in alike.items():
            adamw_torch.adamw(
                tensors,
                *self._step_of(index, dtype, learning_rate),
                (self.beta_1, self.beta_2),
                self.epsilon,
            )

    def get_config(self):
        config = super().get_config()
        config.update(
            rows=self.rows,
            weight_decay=self.row_decay,
            decay=self.decay,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
        )
        return config


def _finite(grads):
    """The gradients, or zeros for all where one of any replica is not finite.

    Returns:
        `(gradients, finite)`, the latter a bool tensor.
    """
    # Where no gradient leads to a variable, Keras has None, and warns.
    squares = sum(
        ops.sum(ops.square(ops.cast(g, "float32")))
        for g in grads
        if g is not None
    )
    # XLA repeats cheap operations for each variable that reads them, here a
    # sum of hundreds, and compiles for a minute; a root it takes once.
    norm = ops.sqrt(squares)
    broken = ops.cast(ops.logical_not(ops.isfinite(norm)), "float32")
    finite = ops.equal(backend_ops.global_sum(broken), 0.0)
    grads = [
        g if g is None else ops.where(finite, g, ops.zeros_like(g))
        for g in grads
    ]
    return grads, finite


def factors_of(variables, rows):
    """The factor of each variable by the one row that matches its path.

    Args:
        variables: list of variables.
        rows: tuple of `(pattern, factor)`.

    Returns:
        list of factors, in the order of the variables.

    Raises:
        ValueError: variables without a row or with several, or rows but the
            authors' without a variable.
    """
    found = {
        v.path: [p for p, _ in rows if re.search(p, v.path)] for v in variables
    }
    used = {pattern for patterns in found.values() for pattern in patterns}
    problems = [f"{path}: no row" for path, ps in found.items() if not ps]
    problems += [
        f"{path}: {len(ps)} rows" for path, ps in found.items() if len(ps) > 1
    ]
    needed = [pattern for pattern, _ in rows if pattern not in _GROUPS]
    problems += [f"row {p!r}: no variable" for p in needed if p not in used]
    if problems:
        raise ValueError(
            "`rows` must have exactly one row for each variable, and no row "
            f"for none. Received: {len(problems)} without, the first 20:\n"
            + "\n".join(problems[:20])
        )
    factors = dict(rows)
    return [factors[patterns[0]] for patterns in found.values()]
