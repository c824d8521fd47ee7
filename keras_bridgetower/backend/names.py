"""Supported backends of Keras."""

BACKENDS = ("tensorflow", "jax", "torch")


def check_backend():
    """Raise if the backend of Keras cannot run the encoders.

    Raises:
        ValueError: the backend is not in `BACKENDS`. OpenVINO's builds the
            encoders, but fails in the image encoder, when a token is repeated
            for each picture.
    """
    import keras

    backend = keras.config.backend()
    if backend not in BACKENDS:
        raise ValueError(
            f"KERAS_BACKEND must be one of {list(BACKENDS)}. For OpenVINO use "
            f'`export(path, format="openvino")`. Received: {backend!r}'
        )
