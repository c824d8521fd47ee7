"""Test batching of the inputs of many requests."""

import asyncio
import concurrent.futures
import dataclasses
import threading

import pytest
from builders import FASTEST

from keras_bridgetower.apps.serve.batching import BatchedPreset
from keras_bridgetower.apps.serve.errors import Refused
from keras_bridgetower.apps.serve.inputs import ToFind
from keras_bridgetower.apps.serve.inputs import ToPredict
from keras_bridgetower.apps.serve.plan import Limits

pytestmark = FASTEST


@dataclasses.dataclass(frozen=True)
class Given:
    """An input of a kind, which stands in a batch with its own kind only."""

    value: int
    kind: str = "a"
    image = None

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
        slow, limits = Slow(), Limits(batch_size=batch_size)
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            preset = BatchedPreset(slow, None, limits, thread, None)
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


def inputs(*values, kind="a"):
    return [Given(value, kind) for value in values]


def test_waiting_inputs_share_a_batch():
    async def check(preset, slow):
        tasks = await waiting(preset, inputs(1), inputs(2, 3), inputs(4))
        slow.go.set()
        assert await asyncio.gather(*tasks) == [[2], [4, 6], [8]]

    assert run(check) == [[100], [1, 2, 3, 4]]


def test_kinds_are_batched_apart_in_turns():
    async def check(preset, slow):
        mixed = [Given(1), Given(10, "b"), Given(2), Given(3)]
        tasks = await waiting(preset, mixed, inputs(11, kind="b"))
        slow.go.set()
        assert await asyncio.gather(*tasks) == [[2, 20, 4, 6], [22]]

    # Three of one kind wait, and two fit: the third comes after the others.
    assert run(check, batch_size=2) == [[100], [1, 2], [10, 11], [3]]


def test_a_small_request_does_not_wait_for_a_large_one():
    async def check(preset, slow):
        [large, small] = await waiting(
            preset, inputs(*range(1, 11)), inputs(20)
        )
        slow.go.set()
        assert await small == [40]
        assert await large == [2 * value for value in range(1, 11)]

    batches = run(check)
    assert 20 in batches[1]
    assert [len(batch) for batch in batches] == [1, 4, 4, 3]


def test_verbs_are_batched_apart():
    async def check(preset, slow):
        [one] = await waiting(preset, inputs(1))
        other = asyncio.create_task(preset.ask("score", inputs(2)))
        await asyncio.sleep(0.01)
        slow.go.set()
        assert (await one, await other) == ([2], [4])

    assert run(check) == [[100], [1], [2]]


def test_inputs_of_ended_requests_are_dropped():
    async def check(preset, slow):
        gone, stays = await waiting(preset, inputs(1, 2), inputs(3))
        gone.cancel()
        await asyncio.sleep(0.01)
        slow.go.set()
        assert await stays == [6]
        with pytest.raises(asyncio.CancelledError):
            await gone

    assert run(check) == [[100], [3]]


def test_ending_a_request_does_not_affect_its_batch():
    async def check(preset, slow):
        both = await waiting(preset, inputs(1), inputs(2))
        slow.go.set()
        while len(slow.batches) < 2:
            await asyncio.sleep(0)
        both[0].cancel()
        assert await both[1] == [4]

    assert run(check) == [[100], [1, 2]]


def test_model_errors_reach_their_batch_only():
    async def check(preset, slow):
        tasks = await waiting(preset, inputs(-1), inputs(2))
        other = asyncio.create_task(preset.ask("embed", inputs(3, kind="b")))
        await asyncio.sleep(0.01)
        slow.go.set()
        for task in tasks:
            with pytest.raises(RuntimeError, match="out of memory"):
                await task
        assert await other == [6]
        assert await preset.ask("embed", inputs(5)) == [10]

    assert run(check) == [[100], [-1, 2], [3], [5]]


class Scores:
    """Scores pairs of a picture and a text, and writes its batches down."""

    def __init__(self):
        self.batches = []
        self.running = threading.Event()
        self.go = threading.Event()

    def square(self, verb):
        return (32, "crop", 32)

    def ask(self, verb, asked):
        self.batches.append([one.image for one in asked])
        self.running.set()
        assert self.go.wait(10)
        return [float(one.image) for one in asked]


class Decoded:
    """Decodes nothing."""

    async def sizes(self, images):
        return dict.fromkeys(images, 100)

    async def squares(self, images, square, pixels=0):
        return {image: image for image in images}


class Index:
    """Matches ten files with the text of a search."""

    ended = None

    def find(self, asked, embed, match):
        try:
            return match([str(n) for n in range(10)], asked.text)
        except BaseException as error:
            self.ended = error
            raise


def run_search(check):
    async def checked():
        scores, index = Scores(), Index()
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            limits = Limits(batch_size=4, request_pixels=300)
            preset = BatchedPreset(scores, index, limits, thread, Decoded())
            try:
                async with asyncio.timeout(10):
                    await check(preset, scores, index)
            finally:
                scores.go.set()

    asyncio.run(checked())


async def search_runs(preset, scores):
    search = asyncio.create_task(preset.find(ToFind("a", None, 3, 10)))
    while not scores.running.is_set():
        await asyncio.sleep(0.001)
    return search


def test_a_search_runs_in_the_batches_of_others():
    async def check(preset, scores, index):
        search = await search_runs(preset, scores)
        other = asyncio.create_task(
            preset.ask("score", [ToPredict(image="99", text="b")])
        )
        await asyncio.sleep(0.01)
        scores.go.set()
        assert await other == [99.0]
        # The search has parts left: it did not hold the model.
        assert scores.batches[:2] == [["0", "1", "2", "3"], ["99"]]
        assert await search == [float(n) for n in range(10)]
        assert [len(batch) for batch in scores.batches] == [4, 1, 4, 2]

    run_search(check)


def test_search_of_an_ended_request_ends():
    async def check(preset, scores, index):
        search = await search_runs(preset, scores)
        search.cancel()
        while index.ended is None:
            await asyncio.sleep(0.001)
        assert isinstance(index.ended, concurrent.futures.CancelledError)
        scores.go.set()
        assert await preset.ask("score", [ToPredict(image="99", text="b")]) == [
            99.0
        ]
        assert scores.batches == [["0", "1", "2", "3"], ["99"]]

    run_search(check)


@pytest.mark.parametrize(
    ("images", "refused"),
    [("1 2 3", False), ("1 1 1 1 1 1", False), ("1 2 3 4", True)],
)
def test_the_pixels_of_a_request_are_bounded(images, refused):
    async def check(preset, scores, index):
        scores.go.set()
        asked = [ToPredict(image=image, text="a") for image in images.split()]
        found = await preset.ask("score", asked)
        assert isinstance(found[0], Refused) == refused
        if refused:
            assert found[0].code == "picture_too_large"
            assert "at most 300 pixels together" in found[0].message
            assert scores.batches == []
        else:
            assert found == [float(image) for image in images.split()]

    run_search(check)
