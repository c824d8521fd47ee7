"""What the workers of tests run, which needs no Keras."""


def refuse():
    raise ValueError("`preset` must be whole. Received: half of it")


async def answer(scope, receive, send):
    """A server that starts and says nothing."""
    for _ in ("startup", "shutdown"):
        message = await receive()
        await send({"type": message["type"] + ".complete"})
