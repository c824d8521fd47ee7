"""Queries with a budget."""

import numpy as np
import pytest
from builders import FASTEST

from keras_bridgetower.apps.search import PictureSearch
from keras_bridgetower.apps.search import SearchModels
from keras_bridgetower.apps.search import cascade

pytestmark = FASTEST
TEXT = "a red circle"
PACE = cascade.Pace(tokens=16, merged=1.0, full=5.0)


@pytest.fixture(scope="module")
def states(matching):
    """States of 40 pictures."""
    task = matching.retrieval
    side = task.backbone.image_size
    rng = np.random.default_rng(0)
    colors = rng.integers(0, 256, (40, 1, 1, 3))
    noise = rng.integers(0, 64, (40, side, side, 3))
    return task.image_states(list(((colors + noise) % 256).astype("uint8")))


class Timed:
    """A scorer by whose passes a clock goes on as `PACE` says, or slower."""

    def __init__(self, task, slower=1.0):
        self.scorer, self.now = task.state_scorer(TEXT), 100.0
        self.slower = slower

    def __call__(self, states, tokens):
        assert len(states) == cascade.BATCH
        cost = PACE.full if tokens is None else PACE.merged
        self.now += self.slower * cost
        return self.scorer(states, tokens)

    def rerank(self, states, budget, added=None):
        end, clock = self.now + budget, lambda: self.now
        found = cascade.rerank(self, states, PACE, end, added, clock)
        assert self.now <= end
        stages = {stage: {} for stage in (cascade.MERGED, cascade.FULL)}
        for index, (stage, score) in found.items():
            stages[stage][index] = score
        return stages


def test_with_time_all_are_judged_by_all_tokens(matching, states):
    found = Timed(matching.retrieval).rerank(states, budget=30.1)
    assert not found["merged"] and len(found["full"]) == 40
    expected = matching.retrieval.score_states(states, TEXT)
    scores = [found["full"][index] for index in range(40)]
    np.testing.assert_allclose(scores, expected, atol=1e-4)


@pytest.mark.parametrize("slower", [1.0, 1.19])
@pytest.mark.parametrize("budget", [0, 2.5, 9, 20, 29])
def test_a_budget_is_held(matching, states, budget, slower):
    found = Timed(matching.retrieval, slower).rerank(states, budget)
    # The first stage has three fifths of it, and a pass may take 1.2 s. The
    # second judges some of the same pictures.
    started = [n for n in range(5) if n * slower + 1.2 <= 0.6 * budget]
    assert len(found["merged"]) + len(found["full"]) == 8 * len(started)


def test_the_best_of_the_first_stage_are_judged_by_all(matching, states):
    timed = Timed(matching.retrieval)
    merged = np.concatenate(
        [timed.scorer(part, PACE.tokens) for part in np.split(states, 5)]
    )
    # Five passes of 1 s, then two of 5 s.
    found = timed.rerank(states, budget=20)
    best = np.argsort(-merged)
    assert sorted(found["full"]) == sorted(best[:16])
    assert sorted(found["merged"]) == sorted(best[16:])
    for index, score in found["merged"].items():
        assert score == pytest.approx(merged[index], abs=1e-4)


def test_what_counts_beside_the_logit_chooses_too(matching, states):
    added = [100.0 * (index % 5 == 0) for index in range(40)]
    found = Timed(matching.retrieval).rerank(states, 14, added)
    assert sorted(found["full"]) == list(range(0, 40, 5))


def test_slow_reading_ends_it_in_time(matching, states):
    """A pass that took longer than was measured is expected to do so again."""
    timed = Timed(matching.retrieval, slower=4.0)
    timed.now, end = 0.0, 9.9
    clock = lambda: timed.now  # noqa: E731
    found = cascade.rerank(timed, states, PACE, end, None, clock)
    # Of a first pass of 4 s, after which another one would end too late.
    assert (len(found), timed.now) == (8, 4.0)


def test_the_pace_is_measured_once(matching):
    scorer = matching.state_scorer(TEXT)
    pace = cascade.find_pace(matching, scorer)
    assert cascade.is_measured(matching, scorer)
    assert cascade.find_pace(matching, matching.state_scorer("a")) is pace
    # Of longer texts passes take longer.
    longer = matching.state_scorer("a red circle in the center of the picture")
    assert not cascade.is_measured(matching, longer)
    assert pace.tokens == matching.retrieval.image_states_shape[1] // 4
    assert 0 < pace.merged and 0 < pace.full


def test_a_query_with_much_time_is_one_without_a_budget(
    matching, photos, lance_name
):
    search = PictureSearch(lance_name, matching)
    search.index(photos, states="float16")
    wanted = search.query(TEXT, top_k=8, rerank=100)
    assert {hit.stage for hit in wanted} == {"full"}
    found = search.query(TEXT, top_k=8, budget_ms=60_000)
    assert [hit.path for hit in found] == [hit.path for hit in wanted]
    np.testing.assert_allclose(
        [hit.match for hit in found], [hit.match for hit in wanted], atol=1e-4
    )
    # No time at all: the list of the contrastive head.
    near = search.query(TEXT, top_k=8, rerank=0)
    assert search.query(TEXT, top_k=8, budget_ms=0.001) == near


def test_stages_come_one_after_the_other(
    matching, photos, lance_name, monkeypatch
):
    search = PictureSearch(lance_name, matching)
    search.index(photos, states="float16")
    found = {0: ("merged", 5.0), 1: ("full", 1.0), 2: ("merged", 7.0)}
    found |= {3: ("full", 2.0)}
    monkeypatch.setattr(cascade, "rerank", lambda *given: found)
    near = [hit.path for hit in search.query(TEXT, rerank=0)]
    hits = search.query(TEXT, budget_ms=100)
    order = [3, 1, 2, 0, *range(4, len(near))]
    assert [hit.path for hit in hits] == [near[i] for i in order]
    stages = [hit.stage for hit in hits]
    assert stages[:4] == ["full", "full", "merged", "merged"]
    assert set(stages[4:]) == {"similarity"}


def test_bad_budgets(matching, photos, lance_name):
    search = PictureSearch(lance_name, matching)
    search.index(photos)
    with pytest.raises(ValueError, match=r"`budget_ms` needs .*states=None"):
        search.query(TEXT, budget_ms=100)
    alone = SearchModels(matching.contrastive, preset=matching.preset)
    with pytest.raises(ValueError, match="`budget_ms` needs"):
        PictureSearch(lance_name, alone).query(TEXT, budget_ms=100)
    with pytest.raises(ValueError, match="`budget_ms` must be a number above"):
        search.query(TEXT, budget_ms=0)
