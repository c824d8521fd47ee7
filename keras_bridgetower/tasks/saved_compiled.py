"""How a task was compiled, in a `.keras` file and back."""

import keras

from keras_bridgetower.backend import keras_patches
from keras_bridgetower.backend import precision

_WITHOUT_SLOTS = "optimizer_without_slots"


class SavedCompiled(keras.Model):
    """Abstract: a model that is compiled again when it is loaded."""

    def get_compile_config(self):
        config = super().get_compile_config()
        if config and not getattr(self.optimizer, "built", True):
            # Keras would warn that slots, which are not there, do not fit.
            config[_WITHOUT_SLOTS] = True
        return config

    def compile_from_config(self, config):
        config = keras_patches.with_public_optimizers(config)
        without_slots = config.pop(_WITHOUT_SLOTS, False)
        self.compile(**keras.saving.deserialize_keras_object(config))
        if not without_slots:
            precision.build_once(self.optimizer, self.trainable_variables)
