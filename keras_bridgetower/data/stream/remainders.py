"""What becomes of a batch that lacks rows: the last one, or one with damage."""

import itertools
import math


class Keep:
    """Such batches are smaller."""

    columns = []

    def problem(self, rows, batch_size, num_hosts, labelled):
        """Why it does not fit a stream, or `""`.

        Args:
            rows: int, of an epoch.
            batch_size: int, rows of a batch on all hosts.
            num_hosts: int.
            labelled: bool, whether batches have labels.

        Returns:
            str.
        """
        if rows < 1:
            return "an epoch has no row"
        if 0 < rows % batch_size < num_hosts:
            return (
                "the last batch of an epoch has too few rows for each host to "
                "get one, and hosts must make as many steps as each other. "
                "Use 'pad' or 'drop'"
            )
        return ""

    def steps(self, batches):
        """Batches of an epoch, from a number that may not be whole."""
        return math.ceil(batches)

    def rows(self, share):
        """Rows that every batch has, of `share` in a whole one, or None."""
        return None

    def complete(self, rows, share, behind):
        """The rows of a batch, with the columns that are added.

        Args:
            rows: list of tuples, those that could be read.
            share: int, how many a whole batch has.
            behind: iterator of the rows that follow in the epoch.

        Returns:
            list of tuples.
        """
        return rows


class Drop(Keep):
    """The last, smaller batch of an epoch is left out, the others filled."""

    def problem(self, rows, batch_size, num_hosts, labelled):
        if rows < batch_size:
            return "an epoch has not one whole batch. Use 'keep' or 'pad'"
        return ""

    def steps(self, batches):
        return math.floor(batches)

    def rows(self, share):
        return share

    def complete(self, rows, share, behind):
        rows = [*rows, *itertools.islice(behind, share - len(rows))]
        # Again from the first, where an epoch has not as many good ones.
        return list(itertools.islice(itertools.cycle(rows), share))


class Pad(Keep):
    """Missing rows are copies of weight 0; all rows get a weight."""

    columns = [("float32", ())]

    def problem(self, rows, batch_size, num_hosts, labelled):
        if rows < 1:
            return "an epoch has no row"
        if not labelled:
            return "it weighs labels, and there are none. Use 'drop'"
        return ""

    def rows(self, share):
        return share

    def complete(self, rows, share, behind):
        spare = rows[0] if rows else next(behind, None)
        if spare is None:
            return []
        missing = share - len(rows)
        return [*((*row, 1.0) for row in rows), *[(*spare, 0.0)] * missing]


REMAINDERS = {"keep": Keep(), "drop": Drop(), "pad": Pad()}
