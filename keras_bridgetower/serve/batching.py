"""Puts the inputs of many requests together, for one forward pass."""

import asyncio


class BatchedPreset:
    """A preset that answers many requests by few forward passes.

    Inputs wait for the thread of the models. Whenever it is free, it takes
    what has waited longest, and whatever waits and fits in the same batch.
    So batches grow with the load, and nothing waits for an idle model. An
    input whose request has ended is dropped.

    Args:
        served: `ServedPreset`.
        index: `ServedIndex`, or None.
        batch_size: int, inputs of a forward pass.
        thread: executor with one thread: a forward pass uses all cores, or
            the device.
    """

    def __init__(self, served, index, batch_size, thread):
        self._served = served
        self._batch_size = batch_size
        self._thread = thread
        self._index = index
        # Lists of `(input, future)`, by what may stand in a batch together.
        # What is first here has waited longest.
        self._waiting = {}
        self._working = None

    @property
    def has_index(self):
        """Whether it can be searched."""
        return self._index is not None

    def facts(self):
        """What `ServedPreset.facts` returns."""
        return self._served.facts()

    async def ask(self, verb, asked):
        """The results of a verb.

        Args:
            verb: str.
            asked: list of inputs.

        Returns:
            list, of which some may be `Refused`.
        """
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in asked]
        for one, future in zip(asked, futures, strict=True):
            waiting = self._waiting.setdefault((verb, *one.batch), [])
            waiting.append((one, future))
        if self._working is None or self._working.done():
            self._working = loop.create_task(self._work())
        # Where the request ends, the futures are cancelled too.
        return await asyncio.gather(*futures)

    async def find(self, asked):
        """The hits for an `inputs.ToFind`, or `Refused`."""
        return await self._in_thread(self._index.find, asked)

    async def _work(self):
        """Run batches until nothing waits."""
        while self._waiting:
            verb, batch = self._next()
            if batch:
                await self._run(verb, batch)

    def _next(self):
        """The verb and the inputs of the next batch, which wait no more."""
        key = next(iter(self._waiting))
        waiting = self._waiting.pop(key)
        waiting = [pair for pair in waiting if not pair[1].done()]
        left = waiting[self._batch_size :]
        if left:
            # Behind all others, which have their turn first.
            self._waiting[key] = left
        return key[0], waiting[: self._batch_size]

    async def _run(self, verb, batch):
        inputs = [one for one, _ in batch]
        try:
            results = await self._in_thread(self._served.ask, verb, inputs)
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)

    async def _in_thread(self, function, *arguments):
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, function, *arguments)
