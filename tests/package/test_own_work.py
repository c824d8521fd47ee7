"""The code of docs/own_work.md, in a file outside of the package."""

import base64
import importlib
import json
import pathlib
import re

import builders
import keras
import keras_hub
import numpy as np
import pytest
from PIL import Image

import keras_bridgetower as kbt
from keras_bridgetower import startup
from keras_bridgetower.apps.cli import main
from keras_bridgetower.apps.demo.models import DemoModels
from keras_bridgetower.apps.demo.tabs.other import other_tabs
from keras_bridgetower.apps.demo.tabs.parts import Parts
from keras_bridgetower.models import head_table
from keras_bridgetower.models.heads import LinearHead

pytestmark = builders.LONG_ELSEWHERE

HERE = pathlib.Path(__file__).parents[1]
COUNTS = np.array([0, 1, 2, 3])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the user's file lies, and what it saves."""
    folder = tmp_path_factory.mktemp("users")
    text = (HERE.parent / "docs" / "own_work.md").read_text()
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (folder / "my_work.py").write_text("\n\n".join(code))
    return folder


@pytest.fixture(scope="module")
def mine(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("my_work")


@pytest.fixture(scope="module")
def task(mine):
    return builders.eager(mine.build(builders.tokenizer()))


def test_own_work_is_saved_and_loaded(mine, task, folder):
    x, _ = builders.raw(4)
    found = task.count(x["images"], x["text"])
    task.save_to_preset(folder / "own")
    task.save(folder / "counter.keras")
    opened = mine.Counter.from_preset(folder / "own")
    loaded = keras.saving.load_model(folder / "counter.keras")
    for made in (opened, loaded):
        assert type(made) is mine.Counter
        assert [w.path for w in made.weights] == [w.path for w in task.weights]
        builders.assert_same_weights(made, task)
    again = builders.eager(opened).count(x["images"], x["text"])
    assert np.abs(again - found).max() <= 1e-6


def test_own_work_trains(mine, task):
    x, _ = builders.raw(4)
    losses = task.fit(x, COUNTS, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    found = task.count(x["images"], x["text"])
    # The objective by hand.
    loss = np.mean(found - COUNTS * np.log(found))
    assert task.evaluate(x, COUNTS, verbose=0) == pytest.approx(loss, abs=1e-4)
    one = task.count(x["images"][0], x["text"][0])
    assert one == pytest.approx(found[0], abs=1e-5)
    with pytest.raises(ValueError, match=r"^`y` must hold counts from 0"):
        task.train_on_batch(x, -COUNTS)


@builders.FASTEST
def test_own_head_on_the_preset_of_another_task(mine):
    with pytest.warns(UserWarning, match="head `count`. The preset has vqa"):
        task = mine.Counter.from_preset("bridgetower_tiny_easy_vqa")
    paths = [weight.path for weight in task.trainable_weights]
    assert "count_head/kernel" in paths
    with pytest.raises(ValueError, match="`count` reads the head count"):
        task.count(np.zeros((8, 8, 3), "uint8"), "how many?")


@builders.FASTEST
def test_own_task_in_the_applications(
    mine, task, folder, monkeypatch, tmp_path
):
    """The command line, the server and the page know it by its module."""
    monkeypatch.setenv(startup.OWN_MODULES, "my_work")
    task.save_to_preset(folder / "applied")
    preset = str(folder / "applied")
    picture = builders.raw(1)[0]["images"][0].astype("uint8")
    Image.fromarray(picture).save(tmp_path / "a.png")
    expected = pytest.approx(task.count(picture, "how many?"), rel=1e-4)

    out = tmp_path / "out.jsonl"
    words = ["predict", preset, "count", tmp_path, out, "--text", "how many?"]
    assert main.main([*map(str, words)]) == 0
    _, row = map(json.loads, out.read_text().splitlines())
    assert row["count"] == expected

    pytest.importorskip("uvicorn", reason="the extra `serve`")
    httpx = pytest.importorskip("httpx", reason="comes with the tests")
    from local_server import serving

    from keras_bridgetower.apps.serve.models import ServedPreset
    from keras_bridgetower.apps.serve.plan import Plan

    served = ServedPreset(preset)
    served.warm_up(1)
    image = base64.b64encode((tmp_path / "a.png").read_bytes()).decode()
    row = {"image": image, "text": "how many?"}
    with serving(Plan((preset,)), [served]) as running:

        def post(**body):
            url = f"{running.url}/v1/predict"
            return httpx.post(url, json=body, timeout=60).json()

        found = post(task="count", inputs=[row, row])
        assert [r["count"] for r in found["data"]] == [expected] * 2
        for body, words in (
            ({"task": "count", "inputs": [{"text": "a"}]}, "image, text"),
            ({"task": "vqa", "inputs": [row]}, "head for the task 'vqa'"),
        ):
            assert words in post(**body)["error"]["message"]

    shown = {"path": str(tmp_path / "a.png")}
    opened = DemoModels((preset,), others=False)
    (tab,) = other_tabs(opened)
    parts = Parts(None, opened, None)
    assert tab.TITLE == "Count things"
    found = tab.ask(parts, preset, [shown, "how many?"])
    assert found["count"] == expected


@keras.saving.register_keras_serializable(package="test_own_work")
class ByNames(keras_hub.models.CLIPVisionEncoder):
    """KerasHub puts a name that is passed before those of its layers."""


@kbt.hidden_states.register(ByNames)
def _states(encoder):
    norm = encoder.get_layer("layer_norm")
    encoder.get_layer("embedding").position_ids.assign(np.arange(17)[None])
    blocks = range(encoder.num_layers)
    return [
        norm(encoder.get_layer(f"encoder_block_{i}").output) for i in blocks
    ]


@builders.FASTEST
def test_a_rule_by_names_after_a_reload(tmp_path):
    kept = builders.clip(layers=1).get_config()
    del kept["name"]
    encoders = ByNames(**kept), builders.roberta(layers=1, name="text")
    model = builders.backbone(*encoders, num_layers=1)
    model.save_to_preset(tmp_path / "preset")
    model.save(tmp_path / "model.keras")
    expected = builders.run(model, builders.features())["pooled"]
    for made in (
        kbt.BridgeTowerBackbone.from_preset(tmp_path / "preset"),
        keras.saving.load_model(tmp_path / "model.keras"),
        model.with_image_size(32),
    ):
        assert (
            np.abs(
                builders.run(made, builders.features())["pooled"] - expected
            ).max()
            <= 1e-6
        )
        assert [w.path for w in made.weights] == [w.path for w in model.weights]
        # A name that was passed is kept.
        assert made.text_encoder.name == "text"


@builders.FASTEST
def test_names_of_heads():
    for name in ("vqa", "my head"):
        with pytest.raises(ValueError, match="`name` must be of"):
            kbt.register_head(name)

    def own(backbone, most=3):
        return LinearHead(most, name="own_head"), (None, 32)

    model = builders.backbone()
    # A cell of a notebook that is run again.
    assert kbt.register_head("own")(own) is kbt.register_head("own")(own)
    assert head_table.make("own", model, most=5).output_dense.units == 5
    kbt.register_head("other")(own)
    with pytest.raises(ValueError, match="of the name 'other_head'"):
        head_table.make("other", model)
    with pytest.raises(ValueError, match="import the file that does.*'third'"):
        head_table.make("third", model)
