"""A training that ends by an error or a signal leaves nothing running."""

import gc
import subprocess
import sys
import time

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
# See `resume_run`, with the exit code of each.
MOMENTS = {
    "loss:1": 1,
    "error:10": 1,
    "int:10": -2,
    "term:10": 143,
    "raise:3": 1,
    "hold:3": 0,
}


def write(folder, count, size):
    records = [streams.record("captions", i, samples=1) for i in range(count)]
    records = [
        streams.Record(
            r.key, (streams.picture(i, size, "JPEG"),), r.samples, "s"
        )
        for i, r in enumerate(records)
    ]
    streams.write(folder, records, "captions")
    return folder


def iterators():
    """Return the iterators of datasets that are still open."""
    found = [x for x in gc.get_objects() if type(x).__name__ == "OwnedIterator"]
    return [x for x in found if vars(x)]


def test_errors_close_all_readers(tmp_path):
    """Keep the error, as an interactive interpreter does."""
    folder = write(tmp_path / "records", 8, (26, 20))
    stream, built = resume_run.of_records(folder)
    gc.collect()
    before = len(iterators())
    validation = {"validation_data": stream.dataset(epochs=1)}
    for steps, in_validation, more in (
        (3, False, {}),
        (3, False, validation),
        (1, True, validation),
    ):
        call = resume_run.After(2, lambda: resume_run.happen("error"))
        if in_validation:
            call.on_test_batch_end = call.on_train_batch_end
        with pytest.raises(RuntimeError, match="the step failed") as kept:
            built.fit(
                stream.dataset(),
                steps_per_epoch=steps,
                callbacks=[call],
                verbose=0,
                **more,
            )
        assert len(iterators()) == before, kept


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_the_process_ends(tmp_path, moment):
    """End while pictures are decoded, which takes longer than a step."""
    folder = write(tmp_path / "records", 24, (2000, 1500))
    command = [resume_run.__file__, folder, tmp_path / "run", moment, "ends"]
    (process,) = launch.started([command], [{}], stdout=subprocess.PIPE)
    try:
        happened = float(process.stdout.readline())
        process.communicate(timeout=SOON)
    finally:
        process.kill()
    took = time.time() - happened
    print(f"{keras.config.backend()} {moment}: {took:.1f} s", file=sys.stderr)
    assert process.returncode == MOMENTS[moment]
