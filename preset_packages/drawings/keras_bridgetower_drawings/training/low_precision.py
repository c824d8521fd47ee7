"""Store the weights of preset folders in half precision, or in fewer bits.

A preset loads as before, in the model's own type. Score it before and after,
and keep a wider type where a score moves.

    python tools/low_precision.py runs/tiny/bridgetower_tiny_easy_mlm
    python tools/low_precision.py --bits 8 runs/tiny/bridgetower_tiny_easy_mlm

In 8 bits, arrays of at least two axes and 1,024 numbers become floats with a
sign, 3 bits of exponent and 4 of fraction, which HDF5 itself reads. The
exponents depend on the array's largest number. In 10 bits they have 2 more
digits and stay float16, whose zeros a wheel compresses. Other arrays are in
half precision.
"""

import argparse
import pathlib
import tempfile
import warnings

import h5py
import numpy as np

from keras_bridgetower.presets import manifest
from keras_bridgetower.presets import weights_file
from keras_bridgetower.presets.folder import PresetFolder

# Binary digits of a number, the first of which is one, by bits.
DIGITS = {8: 5, 10: 7}
# The last digit is at most so far behind the first of the largest number.
PLACES = 10
# Numbers of an array that is rounded.
FEWEST = 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--bits", type=int, choices=(8, 10, 16), default=16)
    settings = parser.parse_args()
    for folder in settings.folders:
        store(folder, settings.bits)
        print(folder, sum(f.stat().st_size for f in folder.rglob("*.h5")))


def store(folder, bits):
    """Rewrite the weights of a preset in some bits, and its manifest."""
    folder = pathlib.Path(folder)
    PresetFolder(folder).finish_check()
    path = folder / weights_file.WEIGHTS
    tasks = folder / weights_file.TASK_WEIGHTS
    files = [path, tasks] if tasks.is_file() else [path]

    def change(name, values):
        return stored(name, values, bits)

    # None of them changes unless all can be stored.
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        smaller = [pathlib.Path(made) / file.name for file in files]
        for file, small in zip(files, smaller, strict=True):
            weights_file.rewrite(file, small, change)
        for file, small in zip(files, smaller, strict=True):
            small.replace(file)
    manifest.write(folder)


def stored(name, values, bits):
    """Return the arguments of `create_dataset` for a weight in some bits."""
    half = halved(name, values)
    few = values.ndim < 2 or values.size < FEWEST
    if bits == 16 or few or values.dtype.kind != "f":
        return {"data": half}
    values, top = rounded(values.astype(np.float32), DIGITS[bits])
    kind = float_of_8_bits(top) if bits == 8 else np.float16
    return {"data": values, "dtype": kind or np.float16}


def halved(name, values):
    """Return a float32 array as float16, and others as they are."""
    if values.dtype != np.float32:
        return values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise ValueError(
            "Weights stored in half precision must lie within ±65504. "
            f"Received: {name}, up to {np.abs(values).max()}. Keep this "
            "preset in float32."
        )
    return half


def rounded(values, digits):
    """Round an array to some binary digits.

    Returns:
        `(values, top)`: all below 2 ** top.
    """
    # Each number is a fraction from a half to one times 2 ** exponent.
    _, exponents = np.frexp(values)
    _, top = np.frexp(np.abs(values).max())
    step = np.ldexp(1.0, np.maximum(exponents - digits, top - PLACES))
    largest = np.ldexp(1 - 0.5**digits, top)
    close = np.clip(np.round(values / step) * step, -largest, largest)
    return close.astype(np.float32), int(top)


def float_of_8_bits(top):
    """Return HDF5's type of floats below 2 ** top, or None if they are large.

    HDF5 rounds small numbers wrongly, so that they must need no rounding.
    """
    exponent, fraction = 3, DIGITS[8] - 1
    # The last of 8 exponents means infinity.
    bias = 2**exponent - 1 - top
    if bias < 0:  # HDF5 has none.
        return None
    kind = h5py.h5t.IEEE_F16LE.copy()
    kind.set_fields(exponent + fraction, fraction, exponent, 0, fraction)
    kind.set_size(1)
    kind.set_ebias(bias)
    return h5py.Datatype(kind)


if __name__ == "__main__":
    main()
