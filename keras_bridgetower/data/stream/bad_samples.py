"""Counts the samples that a stream leaves out, and limits their number."""

import contextlib
import dataclasses
import logging
import threading

LOGGER = logging.getLogger("keras_bridgetower.data")


class BadRecord(ValueError):
    """A record whose content cannot be made into a row of a batch."""


@contextlib.contextmanager
def reading_record():
    """A context that turns each `ValueError` into a `BadRecord`."""
    try:
        yield
    except ValueError as error:
        raise BadRecord(str(error)) from error


@dataclasses.dataclass(frozen=True)
class BadSample:
    """A sample that was left out.

    Args:
        id: str, its id; its number if the id cannot be read.
        source: str, its folder and split.
        reason: str.
    """

    id: str
    source: str
    reason: str


class DamageReport:
    """The samples that a stream left out; may be read during training.

    Args:
        samples: int, the number of samples in the stream.
        max_bad_share: float from 0 to 1, the share of them that may be bad.

    Attributes:
        bad: tuple of `BadSample`. Each sample is there once, even if it was
            read several times.

    Raises:
        ValueError: more samples were bad than allowed.

    Example:

    ```python
    report = DamageReport(samples=2000, max_bad_share=0.001)
    report.add(17, BadSample("q17", "coco/train", "an image of 0 bytes"))
    print(report)
    ```
    """

    def __init__(self, samples, max_bad_share):
        if not 0 <= max_bad_share <= 1:
            raise ValueError(
                "`max_bad_share` must be from 0 (none) to 1 (any number). "
                f"Received: max_bad_share={max_bad_share!r}"
            )
        self.samples = samples
        self.max_bad_share = max_bad_share
        self._bad = {}
        self._lock = threading.Lock()

    @property
    def bad(self):
        with self._lock:
            return tuple(bad for _, bad in sorted(self._bad.items()))

    @property
    def numbers(self):
        """The numbers of the bad samples in the stream: list of int."""
        with self._lock:
            return sorted(self._bad)

    def add(self, number, bad):
        """Count and log a bad sample; raise an error if there are too many.

        Args:
            number: int, the number of the sample in the stream.
            bad: `BadSample`.
        """
        with self._lock:
            if number in self._bad:
                return
            self._bad[number] = bad
            count = len(self._bad)
        LOGGER.warning(
            "Sample %s of %s is left out: %s", bad.id, bad.source, bad.reason
        )
        if count > self.max_bad_share * self.samples:
            raise ValueError(
                f"{count} of {self.samples} samples are bad, more than "
                f"`max_bad_share` allows. The last one is {bad.id!r} of "
                f"{bad.source}: {bad.reason}. Fix the data, or allow more. "
                f"Received: max_bad_share={self.max_bad_share}"
            )

    def __str__(self):
        bad = self.bad
        head = f"{len(bad)} of {self.samples} samples were left out"
        return "\n".join(
            [head, *(f"  {b.id} ({b.source}): {b.reason}" for b in bad)]
        )
