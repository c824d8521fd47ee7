"""Adapt the names of ImageNet's classes to those of the world.

The contrastive head reads class probabilities, and begins with ImageNet's
names. Few pictures are enough to move them: a "hook" there is a crowbar here.
"""

import keras
from keras import ops

from keras_bridgetower_photos.training import gallery
from keras_bridgetower_photos.training.model import text_features

STEPS, RATE, SHARPNESS = 300, 1e-3, 30.0
HIDDEN = 0.3  # Share of the probabilities that a step does not see.


def learn(pairs, world, states, seed):
    """Train the image side of the contrastive head; return the losses.

    `states` are those of all pictures of the gallery.
    """
    texts, fits = gallery.named(world, "train")
    taught = fits.any(0)
    fits = fits[:, taught].astype("float32")
    seen = states[-1][taught, 0].astype("float32")
    head = pairs.heads["itc"]
    features = text_features(pairs.preprocessor.tokenizer, texts)
    told = pairs.backbone.text_tower.predict_on_batch(features)[-1][:, 0]
    told = head({"text": ops.convert_to_tensor(told)})["text"]

    inputs = keras.Input(seen.shape[1:])
    x = keras.layers.Dropout(HIDDEN, seed=seed)(inputs)
    model = keras.Model(inputs, head.image_dense(x))
    head.image_dense.trainable = True
    model.compile(
        keras.optimizers.Adam(RATE), loss=_find(ops.convert_to_numpy(told))
    )
    # One step an epoch: all pictures are one batch.
    history = model.fit(
        seen, fits.T, batch_size=len(seen), epochs=STEPS, verbose=0
    )
    return [round(float(loss), 3) for loss in history.history["loss"][::20]]


def _find(told):
    """Return a loss: each picture finds its name, and each name its pictures.

    `told` has the vectors of names.
    """

    def loss(fits, given):
        fits = ops.cast(fits, given.dtype)
        near = SHARPNESS * ops.matmul(
            ops.normalize(given, axis=-1), ops.transpose(told)
        )
        pictures = ops.sum(fits * ops.log_softmax(near, 1), 1)
        share = fits / ops.maximum(ops.sum(fits, 0, keepdims=True), 1.0)
        names = ops.sum(share * ops.log_softmax(near, 0), 0)
        return -ops.mean(pictures) - ops.mean(names)

    return loss
