"""Batch the inputs of many requests into one forward pass."""

import asyncio
import concurrent.futures
import dataclasses
import itertools

from keras_bridgetower.apps.serve.errors import Refused
from keras_bridgetower.apps.serve.inputs import Asked
from keras_bridgetower.apps.serve.plan import served_name

# Concurrent searches. Each waits in a thread for its batches.
_SEARCHES = 16


def open_preset(plan, preset):
    """Load a preset of a plan, and warm it up.

    Returns:
        `ServedPreset`, and `ServedIndex` or None.

    Raises:
        ValueError: the preset or its index cannot be served.
    """
    # Processes that answer HTTP alone import no Keras.
    from keras_bridgetower.apps.serve.models import ServedIndex
    from keras_bridgetower.apps.serve.models import ServedPreset

    served, index = ServedPreset(preset, plan.tokens), None
    served.warm_up(plan.limits.batch_size)
    if served_name(preset) == plan.searched():
        index = ServedIndex(plan.store, served)
    return served, index


class BatchedPreset:
    """A preset that answers many requests with few forward passes.

    Pictures are decoded first, in other processes. Whenever the thread of the
    models is free, it takes the kind of input that has waited longest, and as
    many of that kind as fit in a batch. So batches grow with the load, and an
    idle model starts at once. If more inputs wait than fit, the first inputs
    of all requests come before the second ones: small requests do not wait
    for large ones. Inputs of requests that have ended are dropped.

    Args:
        served: `ServedPreset`.
        index: `ServedIndex`, or None.
        limits: `Limits`.
        thread: executor with one thread: a forward pass uses all cores, or
            the device.
        decoders: `Decoders`. Several presets may share them.
    """

    def __init__(self, served, index, limits, thread, decoders):
        self._served = served
        self._limits = limits
        self._thread = thread
        self._decoders = decoders
        self.index = index
        self._searching = concurrent.futures.ThreadPoolExecutor(_SEARCHES)
        # Lists of `(place in its request, input, future)`, by verb and
        # `Asked.batch`. The first key has waited longest.
        self._waiting = {}
        self._working = None

    def facts(self):
        return self._served.facts()

    async def ask(self, verb, inputs):
        """Run a verb on a list of `Asked`.

        Returns:
            list of results, some of which may be `Refused`. If a picture is
            refused, inputs without a result have None.
        """
        parts = list(_parts(inputs, self._limits.batch_size))
        pixels, refused = await self._pixels(parts)
        if refused:
            return [_refused(one, refused) for one in inputs]
        results = []
        # One part after the other, so that few pictures are in memory.
        for part in parts:
            found = await self._run_part(verb, part, pixels)
            results += found
            if any(isinstance(result, Refused) for result in found):
                break
        return results + [None] * (len(inputs) - len(results))

    async def find(self, query):
        """Search for an `Asked`. Return the hits, or `Refused`."""
        image = query.image
        if image is not None:
            pixels, refused = await self._pixels([[query]])
            decoded = refused or await self._decode("embed", [image], pixels)
            image = decoded[image]
            if isinstance(image, Refused):
                return image
        loop, calls, ended = asyncio.get_running_loop(), [], False

        def wait(coroutine):
            if ended:
                coroutine.close()
                raise concurrent.futures.CancelledError
            calls.append(asyncio.run_coroutine_threadsafe(coroutine, loop))
            return calls[-1].result()

        try:
            return await loop.run_in_executor(
                self._searching,
                self.index.find,
                dataclasses.replace(query, image=image),
                lambda one: wait(self._batched("embed", [one])),
                lambda paths, text: wait(self._match(paths, text)),
            )
        finally:
            # If the request ends, so do the call that runs and later ones.
            ended = True
            for call in calls:
                call.cancel()

    async def _match(self, paths, text):
        """Return the score of each picture file with a text, or `Refused`."""
        found = []
        pairs = [Asked(image=path, text=text) for path in paths]
        for part in _parts(pairs, self._limits.batch_size):
            found += await self._run_part("score", part)
        return found

    async def _pixels(self, parts):
        """Count the pixels of a request. Return them and its refused images."""
        images = _images(itertools.chain(*parts))
        if not images:
            return 0, {}
        sizes = await self._decoders.sizes(images)
        refused = {k: v for k, v in sizes.items() if isinstance(v, Refused)}
        if refused:
            return 0, refused
        total = sum(sizes[image] for part in parts for image in _images(part))
        most = self._limits.request_pixels
        if total > most:
            message = f"a request must have at most {most} pixels in all."
            refused[images[0]] = Refused(message, "image", "picture_too_large")
        return total, refused

    async def _decode(self, verb, images, *pixels):
        """Decode images. Return a dict by bytes or path; some are `Refused`."""
        if not images:
            return {}
        square = self._served.square(verb)
        return await self._decoders.squares(images, square, *pixels)

    async def _run_part(self, verb, inputs, *pixels):
        """Decode images and run a verb. Return results; some are `Refused`."""
        decoded = await self._decode(verb, _images(inputs), *pixels)
        ready = [
            _refused(one, decoded) or _with_images(one, decoded)
            for one in inputs
        ]
        good = [one for one in ready if not isinstance(one, Refused)]
        found = iter(await self._batched(verb, good))
        return [x if isinstance(x, Refused) else next(found) for x in ready]

    async def _batched(self, verb, inputs):
        """Return the results of inputs whose images are decoded."""
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in inputs]
        pairs = zip(inputs, futures, strict=True)
        for place, (one, future) in enumerate(pairs):
            waiting = self._waiting.setdefault((verb, *one.batch), [])
            waiting.append((place, one, future))
        if self._working is None or self._working.done():
            self._working = loop.create_task(self._work())
        # If the request ends, the futures are cancelled too.
        return await asyncio.gather(*futures)

    async def _work(self):
        while self._waiting:
            verb, batch = self._next()
            if batch:
                await self._run(verb, batch)

    def _next(self):
        """Take the next batch from the queue. Return its verb and inputs."""
        key = next(iter(self._waiting))
        waiting = self._waiting.pop(key)
        waiting = [one for one in waiting if not one[2].done()]
        most = self._limits.batch_size
        if len(waiting) > most:
            waiting.sort(key=lambda one: one[0])
            # Behind all other keys.
            self._waiting[key] = waiting[most:]
        return key[0], [(one, future) for _, one, future in waiting[:most]]

    async def _run(self, verb, batch):
        inputs = [one for one, _ in batch]
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(
                self._thread, self._served.ask, verb, inputs
            )
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)


def _parts(inputs, most):
    """Split inputs into lists with at most `most` images each."""
    part, count = [], 0
    for one in inputs:
        has_image = bool(one.images)
        if count == most and has_image:
            yield part
            part, count = [], 0
        part.append(one)
        count += has_image
    yield part


def _refused(one, images):
    """Return the `Refused` of an input's images, or None."""
    for name, image in one.images.items():
        if isinstance(images.get(image), Refused):
            return dataclasses.replace(images[image], about=name)
    return None


def _images(inputs):
    images = (image for one in inputs for image in one.images.values())
    return list(dict.fromkeys(images))


def _with_images(one, decoded):
    """Return an input with its decoded images."""
    images = {name: decoded[image] for name, image in one.images.items()}
    return dataclasses.replace(one, **images)
