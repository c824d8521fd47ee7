"""The learning rate schedule: linear warm-up, then polynomial decay."""

import keras
from keras import ops


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
