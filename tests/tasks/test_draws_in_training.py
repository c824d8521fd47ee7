"""Random layers inside of a task draw in `fit`, as in eager calls."""

import keras
from builders import array
from builders import backbone
from builders import clip
from builders import difference
from builders import features
from builders import roberta

import keras_bridgetower as kbt


def test_training_draws():
    # Not by dropout, which PyTorch draws by itself.
    body = backbone(clip(layers=2), roberta(layers=2), bridge="static_manager")
    task = kbt.BridgeTowerVQA(body, answers=["yes", "no"])
    states = [v for v in task.variables if v.path.endswith("_state")]
    before = [array(v) for v in states]
    task.compile(
        "sgd", "mse", run_eagerly=keras.config.backend() == "tensorflow"
    )
    x = features(batch=2)
    task.train_on_batch(x, array(task(x)))
    moved = [
        difference(array(v), b) > 0 for v, b in zip(states, before, strict=True)
    ]
    own = {id(v) for v in body.fusion.variables}
    pairs = zip(moved, states, strict=True)
    assert any(changed for changed, v in pairs if id(v) in own)
