"""Base and large at full size, every head. Some GB of memory; -m slow."""

import checkpoints
import keras
import peer
import pytest

from keras_bridgetower.presets import registry

SIZES = {"base": peer.BASE, "large": peer.LARGE}


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_every_head(name, tmp_path, monkeypatch):
    if name == "large" and keras.config.backend() != "torch":
        pytest.skip("large is compared on PyTorch alone, for its memory")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    size = SIZES[name]
    models = checkpoints.with_all_heads(tmp_path / "theirs", size=size)
    expected = checkpoints.run_theirs(models, size)
    del models
    parts = checkpoints.preset_parts(registry.resolve(tmp_path / "theirs"))
    got = checkpoints.run_ours(parts.backbone, parts.heads, size)
    found = checkpoints.differences(got, expected)
    print(name, keras.config.backend(), found)
    assert max(found.values()) <= 2e-4, found
