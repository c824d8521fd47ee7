"""The works that the benchmark times, and their contenders: `works.json`."""

import dataclasses
import importlib.util
import json
import pathlib

# The module of each library that runs a model.
MODULES = {
    **{"keras_bridgetower": "ours", "transformers": "peers"},
    **{"onnxruntime": "runtimes", "openvino": "runtimes"},
}
REFERENCE = "transformers float32"


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way to do a work."""

    name: str  # As in the table.
    library: str  # The package that runs the model.
    beside: str = REFERENCE  # Name of the contender that it is compared with.
    backend: str = "torch"
    dtype: str = "float32"
    compiled: bool = False  # By `torch.compile`.
    file: str = "checkpoint"  # The file that it opens, a key of `save.WRITERS`.
    # Further arguments of the function that does the work.
    settings: dict = dataclasses.field(default_factory=dict)

    def is_reference_only(self):
        return self.beside == self.name

    def left_out_because(self, gpu):
        """Return why it cannot run on this machine, or None."""
        packages = {self.library, self.backend}
        missing = [p for p in packages if importlib.util.find_spec(p) is None]
        if missing:
            return f"{', '.join(sorted(missing))} is not installed"
        # The runtimes are installed for the processor alone.
        if gpu and MODULES.get(self.library) == "runtimes":
            return "it runs on the processor only, and there is a GPU"
        return None


@dataclasses.dataclass(frozen=True)
class Work:
    """One thing to do, by several contenders."""

    title: str  # A heading of the report.
    # A function of the modules in `MODULES`; of `starts`, which returns a
    # command, if each turn is a new process.
    function: str
    contenders: list
    batches: tuple = (1,)  # Rows of a turn; `--batches` replaces them.
    fresh: bool = False  # Start a new process for each turn.
    per_row: str = ""  # The name of one row, if the table has its time.
    also: tuple = ()  # Further measurements that the table shows.

    def named(self):
        return {contender.name: contender for contender in self.contenders}


_FILE = pathlib.Path(__file__).with_suffix(".json")
WORKS = {}
for _name, _values in json.loads(_FILE.read_text()).items():
    _contenders = [Contender(**row) for row in _values.pop("contenders")]
    WORKS[_name] = Work(**_values, contenders=_contenders)
