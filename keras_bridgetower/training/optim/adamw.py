"""AdamW with a rate and weight decay for each group, and the rate's schedule.

A group is a row `(pattern, factor)`. The pattern matches the paths of its
variables, and the factor multiplies the learning rate.
"""

import re

import keras
from keras import ops

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.backend.keras_private.updates import count_updates
from keras_bridgetower.checks import check_choice

# The authors' three groups. Their code searches for substrings of names, which
# the type embedding, the contrastive scale and the ranking head lack, so these
# are trained at the base rate.
_HEADS = r"^(?!rank_head/)[a-z0-9_]+_head/(?!logit_scale)"
_FUSION = r"^fusion/(?!type_embedding)"
_OTHERS = f"^(?!{_HEADS[1:]}|{_FUSION[1:]})"
# Rows that may match no variable, since not every task has all groups.
_GROUPS = (_OTHERS, _FUSION, _HEADS)

# Variables without decay in the authors' code: names with "bias" or a form of
# "norm.weight", such as "norm1.weight" in ViT and DeiT. CLIP's layer norms
# (ln_1, ...), those of the classifiers and the numbered ones of managers have
# other names there and so are decayed, like embeddings and scales.
AUTHORS_NO_DECAY = (
    r"(bias|beta)$",
    r"^(vit|deit)_encoder/(transformer_block_\d+/ln_[12]|ln)/gamma$",
    r"^(embeddings|transformer_layer_\d+/\w+)_layer_norm/gamma$",
    r"^fusion/(?!\w+_manager_\d+/(norm_\d+|own_norm)/).*gamma$",
    r"^mlm_head/.*gamma$",
)
# The usual choice: no decay for norms, biases, scales, the tokens before the
# patches, the scores of managers, learned summaries, and the embeddings of
# positions, types and layers.
SANE_NO_DECAY = (
    r"(bias|beta|gamma|logit_scale|type_embedding(_(text|image)_layers)?)$",
    r"_manager_\d+/(scores|own_score|temperature)$",
    r"(class_embedding|class_token|distillation_token|token_type)$",
    r"_summary/(token|query)$",
    # In DeiT the positions are a weight of its own layer.
    r"(position|segment)_embedding(/embeddings)?$",
)
DECAYS = {"authors": AUTHORS_NO_DECAY, "sane": SANE_NO_DECAY}


def rows(base=1.0, fusion=1.0, head=1.0):
    """Return the authors' three groups of variables, as rows for `AdamW`.

    Args:
        base: float, factor of the learning rate for both towers, the type
            and layer embeddings and scales, or None to freeze them.
        fusion: float, the factor for projections, entries, bridges, managers,
            cross-modal layers and poolers, or None.
        head: float, the factor for the heads, or None.

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
    """Adam with decoupled weight decay and groups of learning rates.

    Each row is a group of variables, and every variable must match exactly
    one row. Learning rate, clipping by the global norm, accumulation, averages
    and loss scaling work as in Keras. If a gradient is not finite, the step is
    skipped: weights and moments do not change, and `skipped` counts it. With
    accumulation, the gradients of that batch count as zero. Schedules count
    updates.

    Args:
        learning_rate: float or schedule, the rate for a factor of 1.
        rows: tuple of `(pattern, factor)`. The pattern is a regular expression
            to search in the paths of variables. The factor multiplies the
            learning rate; None freezes the variables and excludes them from
            the norm of the gradients.
        weight_decay: float, multiplied by the learning rate of the row.
        decay: the variables without decay: `"authors"` (those of their lists
            of names), `"sane"` (norms, biases, scales, class tokens, and
            embeddings of positions and types), or a tuple of patterns.
        beta_1, beta_2, epsilon: floats, the authors' values by default.
        **kwargs: as `keras.optimizers.Optimizer`: `global_clipnorm`,
            `gradient_accumulation_steps`, `use_ema`, `loss_scale_factor`.

    Raises:
        ValueError: variables that match no row or several, or a row that
            matches no variable and is none of the authors'; it lists them.

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
        # Keras' own decay uses one rate for all variables, so it stays off.
        super().__init__(learning_rate, name=name, **kwargs)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        self.rows = tuple((pattern, factor) for pattern, factor in rows)
        self.row_decay = weight_decay
        if isinstance(decay, str):
            check_choice("decay", decay, DECAYS)
        self.decay = decay if isinstance(decay, str) else tuple(decay)

    def build(self, variables):
        if self.built:
            return
        variables = list(variables)
        super().build(variables)
        # Set without Keras' tracking, since they belong to the model.
        object.__setattr__(self, "_built_for", variables)
        self._momentums, self._velocities = self.add_optimizer_variables(
            variables, ["momentum", "velocity"]
        )
        # `compile` of a task does this already; other models need it here.
        count_updates(self)
        self.skipped = self.add_variable((), dtype="int32", name="skipped")
        self._factors = match_rows(variables, self.rows)
        no_decay = DECAYS.get(self.decay, self.decay)
        self._decays = [
            0.0
            if any(re.search(p, v.path) for p in no_decay)
            else self.row_decay
            for v in variables
        ]

    def apply(self, grads, trainable_variables=None):
        variables = list(trainable_variables or self._built_for)
        with keras.name_scope(self.name, caller=self):
            self.build(variables)
        grads, variables, finite = self.finite_or_zero(grads, variables)
        # With accumulation, gradients that are not finite become zero, and the
        # update uses the other batches.
        self._update_factor = (
            1.0 if self.gradient_accumulation_steps else finite
        )
        super().apply(grads, variables)
        self._update_factor = None

    def finite_or_zero(self, grads, variables):
        """Count gradients that are not finite, and replace them by zeros.

        Args:
            grads: list of tensors or None.
            variables: list of their variables.

        Returns:
            `(gradients, variables, finite)`, without frozen variables; the
            last one is a bool tensor.
        """
        learns = [
            (g, v)
            for g, v in zip(grads, variables, strict=True)
            if self._factors[self._get_variable_index(v)] is not None
        ]
        grads, finite = _finite([g for g, _ in learns])
        self.skipped.assign_add(1 - ops.cast(finite, "int32"))
        return grads, [v for _, v in learns], finite

    def update_step(self, gradient, variable, learning_rate):
        index, dtype = self._get_variable_index(variable), variable.dtype
        gradient = ops.cast(gradient, dtype)
        alpha, decay, kept = self._step_values(index, dtype, learning_rate)
        if decay is not None:
            self.assign_sub(variable, variable * decay)
        m, v = self._momentums[index], self._velocities[index]
        self.assign_add(m, (gradient - m) * (kept * (1 - self.beta_1)))
        self.assign_add(
            v, (ops.square(gradient) - v) * (kept * (1 - self.beta_2))
        )
        self.assign_sub(variable, m * alpha / (ops.sqrt(v) + self.epsilon))

    def _step_values(self, index, dtype, learning_rate):
        """Return step size, decay and "is finite" factor of an update."""
        kept = ops.cast(self._update_factor, dtype)
        rate = ops.cast(learning_rate, dtype) * self._factors[index] * kept
        steps = ops.cast(self.iterations + 1, dtype)
        bias_1 = 1 - ops.power(ops.cast(self.beta_1, dtype), steps)
        bias_2 = 1 - ops.power(ops.cast(self.beta_2, dtype), steps)
        alpha = rate * ops.sqrt(bias_2) / bias_1
        decay = self._decays[index]
        return alpha, rate * decay if decay else None, kept

    def _backend_update_step(self, grads, variables, learning_rate):
        # On PyTorch, update many variables at once, like Keras' optimizers.
        on_torch = _on_torch()
        if on_torch is None:
            super()._backend_update_step(grads, variables, learning_rate)
            return
        alike = {}
        for gradient, variable in zip(grads, variables, strict=True):
            index, dtype = self._get_variable_index(variable), variable.dtype
            own = (self._momentums[index], self._velocities[index])
            tensors = [v.value for v in (variable, *own)]
            tensors.insert(1, ops.cast(gradient, dtype))
            key = (self._factors[index], self._decays[index], dtype)
            alike.setdefault(key, (index, []))[1].append(tensors)
        for (*_, dtype), (index, tensors) in alike.items():
            on_torch.adamw(
                tensors,
                *self._step_values(index, dtype, learning_rate),
                (self.beta_1, self.beta_2),
                self.epsilon,
            )

    def get_config(self):
        names = ("rows", "decay", "beta_1", "beta_2", "epsilon")
        own = {name: getattr(self, name) for name in names}
        return super().get_config() | own | {"weight_decay": self.row_decay}


def _on_torch():
    """Return the module for PyTorch, or None on another backend."""
    if keras.config.backend() != "torch":
        return None
    from keras_bridgetower.training.optim import adamw_torch

    return adamw_torch


def _finite(grads):
    """Return the gradients, or zeros if one is not finite in any replica.

    Returns:
        `(gradients, finite)`, the latter a bool tensor.
    """
    # Keras passes None for a variable that the loss does not depend on.
    known = [g for g in grads if g is not None]
    on_torch = _on_torch()
    if on_torch and known:
        squares = on_torch.square_sum(known)
    else:
        squares = sum(
            ops.sum(ops.square(ops.cast(g, "float32"))) for g in known
        )
    # XLA repeats cheap operations for each variable that uses them: here a sum
    # of hundreds of terms, and a minute of compilation. It does not repeat a
    # square root.
    norm = ops.sqrt(squares)
    broken = ops.cast(ops.logical_not(ops.isfinite(norm)), "float32")
    finite = ops.equal(backend_ops.global_sum(broken), 0.0)
    if on_torch and on_torch.known_to_be(finite):
        return grads, finite
    grads = [
        g if g is None else ops.where(finite, g, ops.zeros_like(g))
        for g in grads
    ]
    return grads, finite


def match_rows(variables, rows):
    """Return the factor of each variable, from the row that matches its path.

    Args:
        variables: list of variables.
        rows: tuple of `(pattern, factor)`.

    Returns:
        list of factors, in the order of the variables.

    Raises:
        ValueError: variables that match no row or several, or a row that
            matches no variable and is none of the authors'.
    """
    found = {
        v.path: [p for p, _ in rows if re.search(p, v.path)] for v in variables
    }
    used = {pattern for patterns in found.values() for pattern in patterns}
    problems = [
        f"{path}: {len(patterns) or 'no'} row{'s' if patterns else ''}"
        for path, patterns in found.items()
        if len(patterns) != 1
    ]
    needed = [pattern for pattern, _ in rows if pattern not in _GROUPS]
    problems += [f"row {p!r}: no variable" for p in needed if p not in used]
    if problems:
        raise ValueError(
            "`rows` must have exactly one row for each variable, and no row "
            f"for none. Received: {len(problems)} mismatches, the first 20:\n"
            + "\n".join(problems[:20])
        )
    factors = dict(rows)
    return [factors[patterns[0]] for patterns in found.values()]


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class WarmupPolynomial(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly from 0 to the peak, then decays by a polynomial.

    Step t, counted from 0, has the rate `peak * t / warmup` while
    `t < warmup`. Then the rate is `end + (peak - end) * (1 - share) ** power`,
    where `share` is the share of the steps after the warm-up that are done.
    After the last step it is `end`.

    Args:
        peak: float, the rate at the end of the warm-up.
        total_steps: int, number of updates of the whole training.
        warmup: number of warm-up steps as an int, or their share of
            `total_steps` as a float below 1.
        power: float, 1 for a straight line.
        end: float, the rate after the last step.

    Raises:
        ValueError: the warm-up is not shorter than the training.

    Example:

    ```python
    schedule = WarmupPolynomial(1e-5, total_steps=100_000, warmup=0.1)
    float(schedule(5_000))  # 5e-06
    ```

    Source: the authors' scripts; `get_polynomial_decay_schedule_with_warmup`
    of transformers.
    """

    def __init__(self, peak, total_steps, warmup=0.1, power=1.0, end=0.0):
        is_share = isinstance(warmup, float)
        self.warmup_steps = int(warmup * total_steps) if is_share else warmup
        if not 0 <= self.warmup_steps < total_steps:
            raise ValueError(
                "`warmup` must be a share of the steps as a float below 1, or "
                "a number of steps below `total_steps` as an int. Received: "
                f"warmup={warmup}, total_steps={total_steps}"
            )
        self.peak = peak
        self.total_steps = total_steps
        self.warmup = warmup
        self.power = power
        self.end = end

    def __call__(self, step):
        step = ops.cast(step, "float32")
        rising = self.peak * step / max(1, self.warmup_steps)
        falling_steps = self.total_steps - self.warmup_steps
        done = (step - self.warmup_steps) / falling_steps
        left = ops.power(1.0 - ops.clip(done, 0.0, 1.0), self.power)
        falling = self.end + (self.peak - self.end) * left
        return ops.where(step < self.warmup_steps, rising, falling)

    def get_config(self):
        names = ("peak", "total_steps", "warmup", "power", "end")
        return {name: getattr(self, name) for name in names}
