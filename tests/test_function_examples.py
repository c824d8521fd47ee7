"""The docstring examples of the functions that stand outside `kbt`."""

import inspect
import re

import numpy as np
import pytest

from keras_bridgetower.metrics import glue
from keras_bridgetower.metrics import masked_lm
from keras_bridgetower.metrics import nlvr2
from keras_bridgetower.metrics import retrieval
from keras_bridgetower.metrics import vqa_answers
from keras_bridgetower.metrics import vqa_official
from keras_bridgetower.preprocessing import masking

MODULES = (
    masking,
    glue,
    masked_lm,
    nlvr2,
    retrieval,
    vqa_answers,
    vqa_official,
)
EXAMPLES = [
    (module, documented, example)
    for module in MODULES
    for documented in vars(module).values()
    if getattr(documented, "__module__", None) == module.__name__
    for example in re.findall(
        r"```python\n(.*?)```", inspect.getdoc(documented) or "", re.DOTALL
    )
]


@pytest.mark.parametrize(
    "module, documented, example",
    EXAMPLES,
    ids=[documented.__qualname__ for _, documented, _ in EXAMPLES],
)
def test_docstring_example_runs(
    module, documented, example, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code = compile(example, documented.__qualname__, "exec")
    exec(code, {"np": np, **vars(module)})
