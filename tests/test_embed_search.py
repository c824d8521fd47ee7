"""The example that searches pictures and classifies them."""

import re

import pytest
from builders import FASTEST
from builders import clip
from builders import roberta
from builders import tokenizer
from PIL import Image
from test_examples import run

import keras_bridgetower as kbt


@FASTEST
@pytest.mark.slow
def test_search_and_zero_shot(tmp_path):
    pytest.importorskip("easy_vqa")
    # Random, so that the numbers say nothing; the wiring is what is tested.
    model = kbt.BridgeTowerContrastive(
        kbt.BridgeTowerBackbone(
            clip(layers=1, side=64, patch=32),
            roberta(layers=1),
            hidden_dim=16,
            num_heads=2,
            num_layers=1,
        ),
        kbt.BridgeTowerContrastivePreprocessor(
            tokenizer(sequence_length=64), kbt.BridgeTowerImageConverter(64)
        ),
        projection_dim=8,
    )
    model.save_to_preset(tmp_path / "preset")
    printed = run(
        "embed_search.py",
        *("--preset", str(tmp_path / "preset"), "--pictures", "40"),
        *("--query", "a red circle", "--query", "a dot"),
        cwd=tmp_path,
    )
    assert "40 pictures embedded, 8 numbers each" in printed
    shares = re.findall(r"search: ([\d.]+) %.*chance: ([\d.]+) %", printed)
    assert len(shares) == 3
    found = [float(share) for share, _ in shares]
    assert found == sorted(found) and 0 < float(shares[0][1]) < 5
    assert (
        len(re.findall(r"zero-shot (shape|colour): .* frequent", printed)) == 2
    )
    with Image.open(tmp_path / "out/embed_search/hits.png") as picture:
        assert picture.size == (6 * 175, 2 * 215 + 40)
        assert len(picture.convert("L").getcolors()) > 20
