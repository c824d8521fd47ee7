"""What a worker calls in a test, which needs no Keras."""


def refuse():
    raise ValueError("`preset` must be whole. Received: half of it")
