"""Samples that had to be left out, and how many may be."""

import contextlib
import dataclasses
import logging
import threading

LOGGER = logging.getLogger("keras_bridgetower.data")


class BadRecord(ValueError):
    """A record that gives no row, by what it holds."""


@contextlib.contextmanager
def reading_record():
    """A context whose `ValueError`s are those of a record: `BadRecord`."""
    try:
        yield
    except ValueError as error:
        raise BadRecord(str(error)) from error


@dataclasses.dataclass(frozen=True)
class BadSample:
    """A sample that was left out.

    Args:
        id: str, its id, or where it lies if that cannot be read.
        source: str, the folder and split it is from.
        reason: str.
    """

    id: str
    source: str
    reason: str


class DamageReport:
    """What a stream left out; safe to read while training goes on.

    Args:
        samples: int, how many samples the stream has.
        max_bad_share: float from 0 to 1, the share of them that may be bad.

    Attributes:
        bad: tuple of `BadSample`, each sample once, however often it was met.

    Raises:
        ValueError: more were met.

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

    def add(self, number, bad):
        """Count and log a bad sample, and raise if there are too many.

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
                f"{bad.source}: {bad.reason}. Mend the data, or allow more. "
                f"Received: max_bad_share={self.max_bad_share}"
            )

    def __str__(self):
        bad = self.bad
        head = f"{len(bad)} of {self.samples} samples were left out"
        return "\n".join(
            [head, *(f"  {b.id} ({b.source}): {b.reason}" for b in bad)]
        )
