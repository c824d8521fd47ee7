"""The same weights give the same numbers as transformers."""

import pytest
from builders import LONG_ELSEWHERE
from peer import BASE
from peer import LINKS
from peer import SMALL
from peer import differences

pytestmark = LONG_ELSEWHERE


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("shared_projections", [True, False])
def test_small_model_equals_transformers(link, shared_projections):
    found = differences(SMALL, link=link, shared_projections=shared_projections)
    assert max(found.values()) <= 1e-5, found


@pytest.mark.slow
def test_base_model_equals_transformers():
    found = differences(BASE)
    print(found)
    assert max(found.values()) <= 2e-4, found
