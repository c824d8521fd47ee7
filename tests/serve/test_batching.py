"""Test batching of the inputs of many requests."""

import asyncio
import concurrent.futures
import contextlib
import threading

import pytest
from builders import FASTEST
from served import in_loop

from keras_bridgetower.apps.serve.batching import BatchedPreset
from keras_bridgetower.apps.serve.errors import Refused
from keras_bridgetower.apps.serve.inputs import Asked
from keras_bridgetower.apps.serve.plan import Limits

pytestmark = FASTEST


class Slow:
    """Doubles texts that are numbers, or pictures, when it is let go."""

    def __init__(self):
        self.batches = []
        self.go = threading.Event()

    def square(self, verb):
        return (32, "crop", 32)

    def ask(self, verb, asked):
        values = [x.text if x.image is None else x.image for x in asked]
        self.batches.append(values)
        assert self.go.wait(10)
        if any(number < 0 for number in values):
            raise RuntimeError("out of memory")
        return [2 * number for number in values]


class Decoded:
    async def sizes(self, images):
        return dict.fromkeys(images, 100)

    async def squares(self, images, square, pixels=0):
        return {image: image for image in images}


class Index:
    ended = None

    def find(self, asked, embed, match):
        try:
            return match(list(range(10)), asked.text)
        except BaseException as error:
            self.ended = error
            raise


@contextlib.contextmanager
def opened(**limits):
    slow, limits = Slow(), Limits(request_pixels=300, **limits)
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        try:
            yield BatchedPreset(slow, Index(), limits, thread, Decoded()), slow
        finally:
            slow.go.set()


@contextlib.asynccontextmanager
async def busy(batch_size=4):
    """A preset whose model is busy with the input 100 until it is let go."""
    with opened(batch_size=batch_size) as (preset, slow):
        [first] = await waiting(preset, inputs(100))
        while not slow.batches:
            await asyncio.sleep(0.001)
        yield preset, slow
        slow.go.set()
        assert await first == [200]


async def waiting(preset, *requests, verb="embed"):
    """Requests that wait while the model is busy, as tasks."""
    tasks = [
        asyncio.create_task(preset.ask(verb, list(one))) for one in requests
    ]
    await asyncio.sleep(0.01)
    return tasks


def inputs(*values, kind=1):
    """Inputs of one kind; a batch never mixes kinds."""
    return [Asked(value, top_k=kind) for value in values]


@in_loop
async def test_kinds_and_verbs_are_batched_apart_in_turns():
    async with busy(batch_size=2) as (preset, slow):
        mixed = [*inputs(1), *inputs(10, kind=2), *inputs(2, 3)]
        tasks = await waiting(preset, mixed, inputs(11, kind=2))
        tasks += await waiting(preset, inputs(5), verb="score")
        slow.go.set()
        assert await asyncio.gather(*tasks) == [[2, 20, 4, 6], [22], [10]]
    # Three of one kind wait, and two fit: the third comes after the others.
    assert slow.batches == [[100], [1, 2], [10, 11], [5], [3]]


@in_loop
async def test_a_small_request_does_not_wait_for_a_large_one():
    async with busy() as (preset, slow):
        [large, small] = await waiting(
            preset, inputs(*range(1, 11)), inputs(20)
        )
        slow.go.set()
        assert await small == [40]
        assert await large == [2 * value for value in range(1, 11)]
    assert 20 in slow.batches[1]
    assert [len(batch) for batch in slow.batches] == [1, 4, 4, 3]


@in_loop
async def test_inputs_of_ended_requests_are_dropped():
    async with busy() as (preset, slow):
        gone, stays = await waiting(preset, inputs(1, 2), inputs(3))
        gone.cancel()
        await asyncio.sleep(0.01)
        slow.go.set()
        assert await stays == [6]
    assert slow.batches == [[100], [3]]


@in_loop
async def test_model_errors_reach_their_batch_only():
    async with busy() as (preset, slow):
        *tasks, other = await waiting(
            preset, inputs(-1), inputs(2), inputs(3, kind=2)
        )
        slow.go.set()
        for task in tasks:
            with pytest.raises(RuntimeError, match="out of memory"):
                await task
        assert await other == [6]
        assert await preset.ask("embed", inputs(5)) == [10]
    assert slow.batches == [[100], [-1, 2], [3], [5]]


async def search_runs(preset, slow):
    search = asyncio.create_task(preset.find(Asked("a")))
    while not slow.batches:
        await asyncio.sleep(0.001)
    return search


@in_loop
async def test_a_search_runs_in_the_batches_of_others():
    with opened(batch_size=4) as (preset, slow):
        search = await search_runs(preset, slow)
        [other] = await waiting(
            preset, [Asked(image=99, text="b")], verb="score"
        )
        slow.go.set()
        assert await other == [198]
        # The search has parts left: it did not hold the model.
        assert slow.batches[:2] == [[0, 1, 2, 3], [99]]
        assert await search == [2 * n for n in range(10)]
        assert [len(batch) for batch in slow.batches] == [4, 1, 4, 2]


@in_loop
async def test_search_of_an_ended_request_ends():
    with opened(batch_size=4) as (preset, slow):
        search = await search_runs(preset, slow)
        search.cancel()
        while preset.index.ended is None:
            await asyncio.sleep(0.001)
        ended = preset.index.ended
        assert isinstance(ended, concurrent.futures.CancelledError)
        slow.go.set()
        other = [Asked(image=99, text="b")]
        assert await preset.ask("score", other) == [198]
        assert slow.batches == [[0, 1, 2, 3], [99]]


@in_loop
async def test_the_pixels_of_a_request_are_bounded():
    with opened(batch_size=4) as (preset, slow):
        slow.go.set()

        async def found(*images):
            asked = [Asked(image=image, text="a") for image in images]
            return await preset.ask("score", asked)

        refused = (await found(1, 2, 3, 4))[0]
        assert isinstance(refused, Refused) and "300" in refused.message
        assert refused.code == "picture_too_large"
        assert slow.batches == []
        assert await found(1, 2, 3) == [2, 4, 6]
        assert await found(*[1] * 12) == [2] * 12
