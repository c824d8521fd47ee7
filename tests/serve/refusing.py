"""What a worker of the tests loads, without Keras."""


def refuse():
    raise ValueError("`preset` must be whole. Received: half of it")
