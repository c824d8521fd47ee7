"""Plans what a ranking holds in memory, and keeps the rest in a file."""

import dataclasses
import tempfile

import numpy as np

# So many pictures are scored, and written, together where memory allows.
_PICTURES = 32


class InMemory:
    """Rows of states in an array.

    Args:
        rows: int, number of rows.
        shape: tuple, shape of a row, float32.
    """

    def __init__(self, rows, shape):
        self._rows = np.empty((rows, *shape), "float32")

    def write(self, first, rows):
        """Set rows from number `first` on."""
        self._rows[first : first + len(rows)] = rows

    def read(self, rows):
        """Some rows, by a slice."""
        return self._rows[rows]

    def close(self):
        """Let go of all of them."""


class InFile:
    """Rows of states in a file without a name, as `InMemory`.

    It is mapped into memory only while it is read or written, so that no page
    of it counts for longer; it is gone when the process ends in any way.
    """

    def __init__(self, rows, shape):
        self._file = tempfile.TemporaryFile(buffering=0)
        self._shape = (rows, *shape)

    def write(self, first, rows):
        self._mapped("r+" if first else "w+")[first : first + len(rows)] = rows

    def read(self, rows):
        return np.array(self._mapped("r")[rows])

    def close(self):
        self._file.close()

    def _mapped(self, mode):
        return np.memmap(self._file, "float32", mode, shape=self._shape)


@dataclasses.dataclass(frozen=True)
class Plan:
    """How many states are held at a time.

    Args:
        pictures, texts: int, of a block. There may be fewer of them.
        texts_in, pictures_in: class that holds the states of all of them.
    """

    pictures: int
    texts: int
    texts_in: type
    pictures_in: type


class Sizes:
    """Bytes that a task needs for a row of its work.

    Args:
        task: a `BridgeTowerRetrieval`.
        batch_size: int, rows per forward pass.
        max_memory: int, bytes.
    """

    def __init__(self, task, batch_size, max_memory):
        fusion, tower = task.backbone.fusion, task.backbone.image_tower
        self.batch_size, self.max_memory = batch_size, max_memory
        taps = sum(tap is not None for tap in fusion.taps)
        tokens = task.needed_preprocessor().tokenizer.sequence_length
        patches, width = tower.outputs[-1].shape[1:]
        self.text_shape = (taps, tokens, fusion.hidden_dim)
        self.image_shape = (taps, patches, fusion.hidden_dim)
        self.text = 4 * int(np.prod(self.text_shape))
        self.image = 4 * int(np.prod(self.image_shape))
        pair = _work(patches + tokens, fusion.hidden_dim, fusion.num_heads)
        pixels = 8 * int(np.prod(tower.inputs[0].shape[1:]))
        self.work = batch_size * (
            # Gathered, or just made.
            self.text
            + self.image
            + max(pair, pixels + _work(patches, width, fusion.num_heads))
        )

    def plan(self, pictures, texts, again):
        """Divide the memory.

        Args:
            pictures, texts: int, how many there are.
            again: bool, whether pictures are encoded before all are scored.

        Returns:
            `Plan`.

        Raises:
            ValueError: not even one picture and text fit.
        """
        # What is held here is copied to the device too.
        text, image = 2 * self.text, 2 * self.image
        free = self.max_memory - self.work
        if free < text + image:
            raise ValueError(
                f"`max_memory` must be at least {self.work + text + image} "
                f"bytes with batch_size={self.batch_size}. Lower "
                "`batch_size`, or allow more. "
                f"Received: max_memory={self.max_memory}"
            )
        share = min(free // 2, free - image)
        text_block = _few_sizes(texts, max(1, share // text))
        room = free - text_block * text
        all_texts = text_block >= texts
        # Texts that wait in a file are read once for each block of pictures.
        block = min(pictures, _PICTURES if all_texts or again else pictures)
        block = _few_sizes(block, room // image)
        all_pictures = pictures * self.image + block * image <= room
        return Plan(
            block,
            text_block,
            InMemory if all_texts else InFile,
            InMemory if all_pictures else InFile,
        )


def _few_sizes(count, most):
    """The size of a block: a power of two, far from the most that fits.

    A function is compiled for each size of its blocks. Each number of texts
    would be one, and each is filled up in a copy.
    """
    size = 1 << (count - 1).bit_length()
    return size if 2 * size <= most else min(count, most)


def _work(tokens, width, heads):
    """Estimate of what one row of a forward pass takes at its widest."""
    # Queries, keys, values, the hidden layer four times as wide, residuals,
    # of both modalities; and attention weights where nothing fuses them.
    return 4 * (20 * tokens * width + 2 * heads * tokens**2)
