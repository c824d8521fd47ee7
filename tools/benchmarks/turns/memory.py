"""The memory of a training step, with and without recomputed activations."""

import keras

from turns.devices import gpu_peak_bytes
from turns.peak import peak_above
from turns.peak import resident_bytes
from turns.steps import RATE
from turns.steps import KerasStep


class MemoryStep(KerasStep):
    """A step whose turns also measure memory.

    Gigabytes are those above what stood in memory before the first step. On a
    GPU they are the most that the process held there, weights included.
    """

    def optimizer(self):
        # Without momentum: the optimizer's own memory is not the question.
        return keras.optimizers.SGD(RATE)

    def run(self, batch, tokens):
        before = resident_bytes()
        step = super().run(batch, tokens)

        def measured_step():
            with peak_above(before) as self.peak:
                return step()

        return measured_step

    def measured(self):
        used = gpu_peak_bytes(keras.config.backend()) or self.peak.bytes
        return {"gigabytes": used / 1e9}


LIBRARIES = {"keras_bridgetower": MemoryStep}
