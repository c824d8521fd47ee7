"""What must not change by accident: public names, saved names, presets."""

import re
import subprocess
import sys
import zlib

import pytest
from builders import FASTEST
from contracts import names

from keras_bridgetower.presets import table

pytestmark = FASTEST

ROOT = names.PACKAGE.parent


@pytest.mark.parametrize("file", names.LISTS)
def test_what_stands_in_the_list_is_kept(file):
    """A change that is meant is written by `tests/contracts/names.py`."""
    kept = (names.HERE / file).read_text().splitlines()
    assert names.LISTS[file]() == kept


def test_the_wheel_is_small_and_under_one_license():
    """Presets under another one come in a distribution of their own."""
    size = 0
    for path in names.PACKAGE.rglob("*"):
        assert not path.name.startswith(tuple(table.DISTRIBUTIONS))
        if "LICENSE" in path.name:
            assert "Apache License" in path.read_text()
        if path.is_file() and path.suffix != ".pyc":
            size += len(zlib.compress(path.read_bytes()))
    # It holds code alone: 1.5 MB with the list of files, some 40 kB.
    assert size <= 1_450_000


def test_a_type_checker_reads_every_public_name(tmp_path):
    pytest.importorskip("mypy")
    public = [
        f"kbt.{face}.{name}".replace("..", ".")
        for face in names.FACES
        for name in names.exports(face)
    ]
    wrong = ["kbt.BridgeTowerVQB", "kbt.metrics.normalize_answer('a', 'b')"]
    wrong += ["kbt.training.recipes.Recipe.tyni"]
    read = tmp_path / "read.py"
    lines = ["import keras_bridgetower as kbt", *wrong, *public]
    read.write_text("\n".join(lines) + "\n")
    config = ["--config-file", str(ROOT / "pyproject.toml")]
    # Its cache would say where the file lay the last time.
    config += ["--cache-dir", str(tmp_path / "cache")]
    use = str(names.HERE / "typed_use.py")
    # Its garbage would slow down the tests behind.
    said = subprocess.run(
        [sys.executable, "-m", "mypy", *config, use, str(read)],
        capture_output=True,
        text=True,
    )
    assert said.stderr == ""
    lines = re.findall(r"^(.+?):(\d+): error", said.stdout, re.MULTILINE)
    wanted = [(str(read), str(line)) for line in (2, 3, 4)]
    assert lines == wanted, said.stdout
