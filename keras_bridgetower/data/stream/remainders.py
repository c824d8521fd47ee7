"""What happens to batches that lack rows: kept smaller, dropped or padded.

The last batch of an epoch lacks rows, and so does a batch with bad samples.
"""

import itertools
import math


class Keep:
    """Batches that lack rows are smaller."""

    # Columns that are added to batches, `(dtype, shape)` each.
    columns = []

    def problem(self, rows, batch_size, num_hosts, labelled):
        """Tell why a stream cannot be used with it; `""` if it can.

        Args:
            rows: int, number of rows in an epoch.
            batch_size: int, number of rows of a batch on all hosts together.
            num_hosts: int, number of hosts.
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
        """Number of batches in an epoch; `batches` is rows over batch size."""
        return math.ceil(batches)

    def fixed_rows(self, share):
        """The number of rows that all batches have, or None if it varies.

        `share` is the number of rows of a complete batch on this host.
        """
        return None

    def complete(self, rows, share, behind):
        """Complete the rows of a batch.

        Args:
            rows: list of tuples, the rows that could be read.
            share: int, number of rows of a complete batch on this host.
            behind: iterator over the rows that follow in the epoch.

        Returns:
            list of tuples, with added columns if there are `columns`.
        """
        return rows


class Drop(Keep):
    """The last, smaller batch of an epoch is dropped.

    Other batches are filled with rows that follow in the epoch.
    """

    def problem(self, rows, batch_size, num_hosts, labelled):
        if rows < batch_size:
            return "an epoch has not one whole batch. Use 'keep' or 'pad'"
        return ""

    def steps(self, batches):
        return math.floor(batches)

    def fixed_rows(self, share):
        return share

    def complete(self, rows, share, behind):
        rows = [*rows, *itertools.islice(behind, share - len(rows))]
        # Repeat rows if the epoch has too few good ones.
        return list(itertools.islice(itertools.cycle(rows), share))


class Pad(Keep):
    """Batches are padded with copies of a row, of sample weight -0.0.

    The sign tells a task that they are no rows of the batch (see
    `losses.is_padding`).
    """

    columns = [("float32", ())]

    def problem(self, rows, batch_size, num_hosts, labelled):
        if rows < 1:
            return "an epoch has no row"
        if not labelled:
            return "it weighs labels, and there are none. Use 'drop'"
        return ""

    def fixed_rows(self, share):
        return share

    def complete(self, rows, share, behind):
        spare = rows[0] if rows else next(behind, None)
        if spare is None:
            return []
        missing = share - len(rows)
        return [*((*row, 1.0) for row in rows), *[(*spare, -0.0)] * missing]


REMAINDERS = {"keep": Keep(), "drop": Drop(), "pad": Pad()}
