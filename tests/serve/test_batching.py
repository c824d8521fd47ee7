"""How inputs of many requests come into one forward pass."""

import asyncio
import concurrent.futures
import dataclasses
import threading

import pytest
from builders import FASTEST

from keras_bridgetower.serve.batching import BatchedPreset

pytestmark = FASTEST


@dataclasses.dataclass(frozen=True)
class Given:
    """An input of a kind, which stands in a batch with its own kind only."""

    value: int
    kind: str = "a"

    @property
    def batch(self):
        return (self.kind,)


class Slow:
    """Doubles values, when it is let go, and writes its batches down."""

    def __init__(self):
        self.batches = []
        self.go = threading.Event()

    def ask(self, verb, asked):
        self.batches.append([one.value for one in asked])
        assert self.go.wait(10)
        if any(one.value < 0 for one in asked):
            raise RuntimeError("out of memory")
        return [2 * one.value for one in asked]


def run(check, batch_size=4):
    """Run a check with a preset whose model is busy with the input 100."""

    async def with_a_busy_model():
        slow = Slow()
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            preset = BatchedPreset(slow, None, batch_size, thread)
            first = asyncio.create_task(preset.ask("embed", [Given(100)]))
            while not slow.batches:
                await asyncio.sleep(0.001)
            try:
                async with asyncio.timeout(10):
                    await check(preset, slow)
                    slow.go.set()
                    assert await first == [200]
            finally:
                slow.go.set()
        return slow.batches

    return asyncio.run(with_a_busy_model())


async def waiting(preset, *requests):
    """Requests that wait while the model is busy, as tasks."""
    tasks = [
        asyncio.create_task(preset.ask("embed", list(one))) for one in requests
    ]
    await asyncio.sleep(0.01)
    return tasks


def given(*values, kind="a"):
    return [Given(value, kind) for value in values]


def test_what_waits_comes_into_one_batch():
    async def check(preset, slow):
        tasks = await waiting(preset, given(1), given(2, 3), given(4))
        slow.go.set()
        assert await asyncio.gather(*tasks) == [[2], [4, 6], [8]]

    assert run(check) == [[100], [1, 2, 3, 4]]


def test_kinds_have_batches_of_their_own_and_turns():
    async def check(preset, slow):
        mixed = [Given(1), Given(10, "b"), Given(2), Given(3)]
        tasks = await waiting(preset, mixed, given(11, kind="b"))
        slow.go.set()
        assert await asyncio.gather(*tasks) == [[2, 20, 4, 6], [22]]

    # Three of one kind wait, and two fit: the third comes after the others.
    assert run(check, batch_size=2) == [[100], [1, 2], [10, 11], [3]]


def test_verbs_have_batches_of_their_own():
    async def check(preset, slow):
        [one] = await waiting(preset, given(1))
        other = asyncio.create_task(preset.ask("score", given(2)))
        await asyncio.sleep(0.01)
        slow.go.set()
        assert (await one, await other) == ([2], [4])

    assert run(check) == [[100], [1], [2]]


def test_the_work_of_a_request_that_ended_is_dropped():
    async def check(preset, slow):
        gone, stays = await waiting(preset, given(1, 2), given(3))
        gone.cancel()
        await asyncio.sleep(0.01)
        slow.go.set()
        assert await stays == [6]
        with pytest.raises(asyncio.CancelledError):
            await gone

    assert run(check) == [[100], [3]]


def test_a_request_that_ends_in_its_batch_does_no_harm_to_others():
    async def check(preset, slow):
        both = await waiting(preset, given(1), given(2))
        slow.go.set()
        while len(slow.batches) < 2:
            await asyncio.sleep(0)
        both[0].cancel()
        assert await both[1] == [4]

    assert run(check) == [[100], [1, 2]]


def test_a_fault_of_the_model_is_told_to_its_batch_alone():
    async def check(preset, slow):
        tasks = await waiting(preset, given(-1), given(2))
        other = asyncio.create_task(preset.ask("embed", given(3, kind="b")))
        await asyncio.sleep(0.01)
        slow.go.set()
        for task in tasks:
            with pytest.raises(RuntimeError, match="out of memory"):
                await task
        assert await other == [6]
        assert await preset.ask("embed", given(5)) == [10]

    assert run(check) == [[100], [-1, 2], [3], [5]]
