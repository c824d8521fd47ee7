"""The backends of Keras that run every layer of the models."""

BACKENDS = ("tensorflow", "jax", "torch")


def check_backend():
    """Refuse a backend of Keras that cannot run the encoders.

    Raises:
        ValueError: another backend than those of `BACKENDS`. That of OpenVINO
            builds the encoders, and fails where the one of images repeats a
            token for each picture.
    """
    import keras

    backend = keras.config.backend()
    if backend not in BACKENDS:
        raise ValueError(
            f"KERAS_BACKEND must be one of {list(BACKENDS)}, which run every "
            "layer of the encoders. For OpenVINO write the model by "
            '`export(path, format="openvino")` with KERAS_BACKEND=torch. '
            f"Received: {backend!r}"
        )
