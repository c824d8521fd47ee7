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


def test_the_type_check_sees_every_public_name():
    text = (names.HERE / "typed_use.py").read_text()
    for face in names.FACES:
        prefix = f"kbt.{face}".removesuffix(".")
        for name in names.exports(face):
            assert re.search(rf"\b{prefix}\.{name}\b", text), (face, name)


def test_the_wheel_is_small():
    """It holds code alone: 1.5 MB with the list of files, some 40 kB."""
    files = [f for f in names.PACKAGE.rglob("*") if f.is_file()]
    sizes = (
        len(zlib.compress(f.read_bytes())) for f in files if f.suffix != ".pyc"
    )
    assert sum(sizes) <= 1_450_000


def test_the_wheel_is_under_one_license():
    """Presets under another one come in a distribution of their own."""
    for path in names.PACKAGE.rglob("*"):
        assert not path.name.startswith(tuple(table.DISTRIBUTIONS))
        if "LICENSE" in path.name:
            assert "Apache License" in path.read_text()


def test_a_type_checker_reads_the_public_face(tmp_path):
    pytest.importorskip("mypy")
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "import keras_bridgetower as kbt\n"
        "kbt.BridgeTowerVQB\n"
        "kbt.metrics.normalize_answer('a', 'b')\n"
        "kbt.training.recipes.Recipe.tyni\n"
    )
    config = ["--config-file", str(ROOT / "pyproject.toml")]
    # Its cache would say where the file lay the last time.
    config += ["--cache-dir", str(tmp_path / "cache")]
    use = str(names.HERE / "typed_use.py")
    # Its garbage would slow down the tests behind.
    said = subprocess.run(
        [sys.executable, "-m", "mypy", *config, use, str(wrong)],
        capture_output=True,
        text=True,
    )
    assert said.stderr == ""
    lines = re.findall(r"^(.+?):(\d+): error", said.stdout, re.MULTILINE)
    wanted = [(str(wrong), str(line)) for line in (2, 3, 4)]
    assert lines == wanted, said.stdout
