"""Lets a contender and its reference take turns, and gathers their times."""

import statistics

from turns.ratios import distance
from turns.ratios import summary
from turns.runners import ContenderFailed

# What a turn says of itself besides what it measured.
_KNOWN = ("seconds", "first", "outputs")


class Rounds:
    """The rounds of one work with one saved model.

    Each contender has a process beside that of its reference, and the two take
    turns, so that a machine that slows down slows both. The process of a
    reference is kept for the next contender.

    Args:
        work: `Work`.
        saved: `Saved`.
        repeats: int, turns of each.
    """

    def __init__(self, work, saved, repeats):
        self.work, self.saved, self.repeats = work, saved, repeats
        self.contenders = work.named()
        self._name, self._reference = None, None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._close_reference()

    def rows(self, contender, batches, tokens):
        """Time one contender.

        Args:
            contender: `Contender`.
            batches: list of int.
            tokens: int, length of the texts.

        Yields:
            dict: those of `ratios.summary`, `name`, `beside`, `batch`,
            `distance` of the outputs, and medians of what else was measured,
            of both. A `Resident` also gives `first` and `loading` seconds,
            `device`, and of this package `flash attention`.
        """
        beside = self._beside(contender.beside)
        runner = self._opened(contender)
        try:
            for batch in batches:
                turn = {"batch": batch, "tokens": tokens}
                yield {
                    "name": contender.name,
                    "beside": contender.beside,
                    "batch": batch,
                    **runner.about,
                    **self._compared(runner, beside, turn),
                }
        except ContenderFailed:
            # The reference may be the one that failed: the next contender
            # gets a new one.
            self._close_reference()
            raise
        finally:
            runner.close()

    def _compared(self, runner, beside, turn):
        first, wanted = runner.first(turn), beside.first(turn)
        row = {"first": first["first"]} if "first" in first else {}
        if "outputs" in first and "outputs" in wanted:
            row["distance"] = distance(first["outputs"], wanted["outputs"])
        turns = [
            (runner.ask(turn), beside.ask(turn)) for _ in range(self.repeats)
        ]
        row |= summary([(a["seconds"], b["seconds"]) for a, b in turns])
        if self.work.per_row:
            row["seconds per row"] = row["seconds"] / turn["batch"]
        ours, theirs = zip(*turns, strict=True)
        for said, answers in (("", ours), ("reference's ", theirs)):
            for key in sorted(answers[0].keys() - _KNOWN):
                values = [answer[key] for answer in answers]
                row[f"{said}{key}"] = statistics.median(values)
        return row

    def _beside(self, name):
        """The process of a reference."""
        if name != self._name:
            self._close_reference()
            self._reference = self._opened(self.contenders[name])
            self._name = name
        return self._reference

    def _opened(self, contender):
        self.saved.need(contender.file)
        return self.work.runner(self.work.module, contender, self.saved)

    def _close_reference(self):
        if self._reference is not None:
            self._reference.close()
            self._name, self._reference = None, None
