"""The paper's ablations: columns of parameters."""

import keras
import pytest

pytest.importorskip("matplotlib")

from ablation_variants import BASE  # noqa: E402
from ablation_variants import COUNTS  # noqa: E402
from ablation_variants import STUDIES  # noqa: E402
from ablation_variants import TINY  # noqa: E402

# Nothing here depends on the backend but one run.
pytestmark = pytest.mark.skipif(
    keras.config.backend() != "torch", reason="runs once, in the fastest pass"
)


def as_number(text):
    return float(text[:-1]) * {"K": 1e3, "M": 1e6}[text[-1]]


# tests/models/test_backbone.py has the same numbers of the library.
@pytest.mark.slow
@pytest.mark.parametrize("study", ["definition", "layers"])
def test_parameter_counts_equal_the_paper(study):
    counted = COUNTS[STUDIES[study].counted]
    for variant in STUDIES[study].variants(BASE):
        count = counted(variant, BASE)
        published = as_number(variant.paper["parameters"])
        # To the last digit that the paper prints, or one off.
        step = 100 if published < 1e6 else 100_000
        assert abs(round(count / step) * step - published) <= 1.01 * step


@pytest.mark.slow
def test_every_variant_can_be_built():
    assert {n: len(s.variants(TINY)) for n, s in STUDIES.items()} == {
        **{"definition": 9, "layers": 10, "bridges": 5},
        **{"managers": 4, "encoders": 12, "cross_encoder": 4},
    }
    for study in STUDIES.values():
        assert all(COUNTS["model"](v, TINY) for v in study.variants(TINY))
    assert len(STUDIES["layers"].variants(BASE)) == 16
