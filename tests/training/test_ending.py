"""A training that ends by an error or a signal leaves nothing running."""

import gc
import subprocess
import sys
import time

import ending_run
import keras
import launch
import pytest
import resume_run
import streams
from builders import LONG_ELSEWHERE

pytestmark = LONG_ELSEWHERE

# Seconds. On an idle machine it takes less than 5, of which the interpreter
# and the frameworks need most to end; before, it took forever.
SOON = 60
# See `ending_run`, with the exit code of each.
MOMENTS = {
    "loss:1": 1,
    "error:10": 1,
    "int:10": -2,
    "term:10": 143,
    "raise:3": 1,
    "hold:3": 0,
}


def write(folder, count, size):
    streams.write(
        folder,
        [
            streams.Record(
                f"k{i}",
                (streams.picture(i, size, "JPEG"),),
                streams.record("captions", i, samples=1).samples,
                "s",
            )
            for i in range(count)
        ],
        "captions",
    )
    return folder


def iterators():
    """Return the iterators of datasets that are still open."""
    return [
        x
        for x in gc.get_objects()
        if type(x).__name__ == "OwnedIterator" and vars(x)
    ]


def test_errors_close_all_readers(tmp_path):
    """Keep the error, as an interactive interpreter does."""
    folder = write(tmp_path / "records", 8, (26, 20))
    stream, built = resume_run.of_records(folder)
    gc.collect()
    before = len(iterators())
    call = ending_run.Moment("error", 2)
    for arguments in ({}, {"validation_data": stream.dataset(epochs=1)}):
        with pytest.raises(RuntimeError, match="the step failed") as kept:
            built.fit(
                stream.dataset(),
                steps_per_epoch=3,
                callbacks=[ending_run.Moment("error", 2)],
                verbose=0,
                **arguments,
            )
        assert len(iterators()) == before, kept
    with pytest.raises(RuntimeError, match="the step failed") as kept:
        call.on_test_batch_end = call.on_train_batch_end
        built.fit(
            stream.dataset(),
            steps_per_epoch=1,
            validation_data=stream.dataset(epochs=1),
            callbacks=[call],
            verbose=0,
        )
    assert len(iterators()) == before, kept


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_the_process_ends(tmp_path, moment):
    """End while pictures are decoded, which takes longer than a step."""
    folder = write(tmp_path / "records", 24, (2000, 1500))
    command = [ending_run.__file__, folder, tmp_path / "run", moment]
    (process,) = launch.started([command], [{}], stdout=subprocess.PIPE)
    try:
        happened = float(process.stdout.readline())
        process.communicate(timeout=SOON)
    finally:
        process.kill()
    took = time.time() - happened
    print(f"{keras.config.backend()} {moment}: {took:.1f} s", file=sys.stderr)
    assert process.returncode == MOMENTS[moment]
