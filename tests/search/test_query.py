"""Compare queries with brute force in NumPy and with the matching head."""

import concurrent.futures
import dataclasses
import inspect
import json
import pathlib
import re
import shutil

import numpy as np
import pytest
from builders import FASTEST

import keras_bridgetower as kbt
from keras_bridgetower.apps.search import PictureSearch
from keras_bridgetower.apps.search import QdrantServer
from keras_bridgetower.apps.search import SearchModels
from keras_bridgetower.apps.search import info
from keras_bridgetower.apps.search.models import improves_lists
from keras_bridgetower.presets import registry
from keras_bridgetower.presets import table

pytestmark = FASTEST
TEXT = "a medium red circle in the center."


@pytest.fixture
def files(photos):
    return sorted(photos.rglob("*_0.png"))


def check_equal(hits, files, similarities):
    """Hits are the files in the order of some similarities."""
    order = np.argsort(-similarities, kind="stable")[: len(hits)]
    assert [hit.path for hit in hits] == [str(files[i]) for i in order]
    np.testing.assert_allclose(
        [hit.similarity for hit in hits], similarities[order], atol=1e-5
    )


def test_a_query_equals_brute_force(three_way, photos, files, store_name):
    search = PictureSearch(store_name, three_way)
    search.index(photos, batch_size=4)
    embed = three_way.contrastive.embed
    vectors = embed(images=files, batch_size=4)
    text, image = {"text": TEXT}, {"image": files[3]}
    for given in (text, image, text | image):
        hits = search.query(**given, top_k=4)
        wanted = embed(**{f"{name}s": value for name, value in given.items()})
        check_equal(hits, files, vectors @ wanted)
        assert all(hit.match is None for hit in hits)
    with pytest.raises(ValueError, match="`rerank` must be 0 or None .*=3"):
        search.query(TEXT, rerank=3)


def test_two_way_head_uses_the_mean_vector(matching, files, lance):
    embed = matching.contrastive.embed
    both = embed(texts=TEXT) + embed(images=files[3])
    both /= np.linalg.norm(both)
    hits = lance.query(TEXT, files[3], top_k=4, rerank=0)
    check_equal(hits, files, embed(images=files) @ both)


# Without a server this call does nothing, and Qdrant says so.
@pytest.mark.filterwarnings("ignore:Local mode performs exact")
def test_the_collection_of_a_server(matching, three_way, photos, files):
    """By Qdrant's own engine in memory, which has the calls of a server."""
    pytest.importorskip("qdrant_client", reason="the extra `search`")
    store = QdrantServer(":memory:", collection="mine")
    search = PictureSearch(store, matching)
    with pytest.raises(ValueError, match="Make one first"):
        search.query(TEXT)
    assert search.index(photos).embedded == 10
    assert search.index(photos).unchanged == 10
    embed = matching.contrastive.embed
    near = embed(images=files) @ embed(texts=TEXT)
    check_equal(search.query(TEXT, rerank=0), files, near)
    facts = info(store)
    assert facts["whole"] is True and facts["pictures"] == 10
    (photos / "ellipse" / "red_0.png").unlink()
    assert search.index(photos).removed == 1
    with pytest.raises(ValueError, match="an index of the same model"):
        PictureSearch(store, three_way).query(TEXT)
    store.close()


def test_reranking_is_the_order_of_the_matching_task(matching, files, lance):
    hits = lance.query(TEXT, top_k=10)
    found = {hit.path: hit.match for hit in hits}
    # Of a preset that is opened for itself, and shares no backbone.
    alone = kbt.BridgeTowerRetrieval.from_preset(matching.preset)
    assert matching.retrieval.backbone is matching.contrastive.backbone
    scores = alone.score(files, TEXT)
    matches = [found[str(file)] for file in files]
    assert matches == pytest.approx(list(scores), abs=1e-4)
    assert list(found) == [str(files[i]) for i in np.argsort(-scores)]
    # Of four, the order is new; behind them that of the vectors goes on.
    near = lance.query(TEXT, top_k=10, rerank=0)
    some = lance.query(TEXT, top_k=10, rerank=4)
    assert {h.path for h in some[:4]} == {h.path for h in near[:4]}
    assert some[4:] == near[4:]
    matches = [hit.match for hit in some[:4]]
    assert matches == sorted(matches, reverse=True)
    # A picture alone is nothing that a text matches.
    by_picture = lance.query(image=files[0], top_k=3)
    assert by_picture[0].path == str(files[0])
    assert [hit.match for hit in by_picture] == [None] * 3


def test_only_a_head_that_is_known_to_help_reranks_unasked(
    matching, lance, tmp_path, monkeypatch
):
    """By the table, or by the report of a preset, which need not have one."""
    folder, names = registry.open_preset(matching.preset), table.PRESETS
    assert not improves_lists(matching.preset, folder)
    known = dataclasses.replace(names[matching.preset], reranks=True)
    monkeypatch.setitem(names, matching.preset, known)
    assert improves_lists(matching.preset, folder)

    mine = registry.open_preset(shutil.copytree(folder.root, tmp_path / "a"))
    assert not improves_lists("mine", mine)
    for helps in (False, True):
        report = json.dumps({"helps": helps, "gain": 0.1})
        (mine.root / "report.json").write_text(report)
        assert improves_lists("mine", mine) is helps
        monkeypatch.setattr(matching, "reranks", helps)
        unasked = lance.query(TEXT)
        assert unasked == lance.query(TEXT, rerank=10 if helps else 0)
        assert [hit.match is None for hit in unasked] == [not helps] * 10
    assert SearchModels.from_preset(str(mine.root)).reranks


def test_the_similarity_counts_as_much_as_its_preset_says(
    matching, lance, monkeypatch
):
    by_match = lance.query(TEXT, top_k=10)
    known = table.PRESETS[matching.preset]
    match, near = np.array([(h.match, h.similarity) for h in by_match]).T
    # A weight that moves some hits, and not as far as their similarity alone.
    weight = float(np.ptp(match) / np.ptp(near))
    both = dataclasses.replace(known, similarity_weight=weight)
    monkeypatch.setitem(table.PRESETS, matching.preset, both)
    order = np.argsort(-(match + weight * near))
    assert sorted(order.tolist()) != order.tolist()
    assert lance.query(TEXT, top_k=10) == [by_match[i] for i in order]


@pytest.mark.parametrize("rerank", [0, 2, 128])
def test_pictures_that_are_gone_are_left_out(lance, rerank):
    first, second, *others = lance.query(TEXT, top_k=10, rerank=0)
    pathlib.Path(first.path).unlink()
    # What has its name now is no picture.
    pathlib.Path(second.path).unlink()
    pathlib.Path(second.path).mkdir()
    with pytest.warns(UserWarning, match=f"2, such as '{first.path}'"):
        found = lance.query(TEXT, top_k=2, rerank=rerank)
    near = others if rerank == 128 else others[:2]
    assert {h.path for h in found} <= {h.path for h in near}
    assert len(found) == 2 and all(bool(h.match) == bool(rerank) for h in found)
    # By a picture, which no matching head reads.
    with pytest.warns(UserWarning, match="files are gone"):
        assert len(lance.query(image=others[0].path, top_k=10)) == 8


def test_unreadable_pictures_rank_last(lance):
    first, *others = lance.query(TEXT, top_k=10)
    pathlib.Path(first.path).write_bytes(b"\x89PNG\r\n\x1a\n")
    *found, last = lance.query(TEXT, top_k=10)
    assert last.path == first.path and last.match is None
    assert "readable image file" in last.problem
    assert [dataclasses.replace(h, match=None) for h in found] == [
        dataclasses.replace(h, match=None) for h in others
    ]


def test_the_approximate_structure_finds_the_same(matching, photos, lance_name):
    search = PictureSearch(lance_name, matching)
    assert search.index(photos, ann_from=11).ann is False
    before = search.query(TEXT, rerank=0)
    assert search.index(photos, ann_from=10).ann is True
    after = search.query(TEXT, rerank=0)
    assert [hit.path for hit in after] == [hit.path for hit in before]
    vector = matching.embed_query(text=TEXT)
    exact = search.store.nearest(vector, 10, exact=True)
    near = search.store.nearest(vector, 10)
    assert [s.id for s, _ in exact] == [s.id for s, _ in near]


def test_threads_query_while_another_indexes(
    matching, photos, lance_name, lance
):
    texts = ["a red circle", "a blue square"] * 4
    wanted = [lance.query(text, top_k=3) for text in texts]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda text: lance.query(text, top_k=3), texts)
        again = PictureSearch(lance_name, matching).index(photos)
        assert list(found) == wanted
    assert again.unchanged == 10


def test_wrong_queries_are_refused(lance, tmp_path):
    for wrong, message in (
        ({}, "`text` or `image`"),
        ({"text": "circle " * 60}, "must not be longer"),
        ({"image": tmp_path / "none.png"}, "a file that exists"),
        ({"text": [TEXT, TEXT]}, "one text and one picture"),
        ({"text": TEXT, "top_k": 0}, "`top_k`"),
    ):
        with pytest.raises(ValueError, match=message):
            lance.query(**wrong)


# The first makes the index that the others open.
DOCUMENTED = (
    *("PictureSearch", "SearchModels", "info", "remove", "prune"),
    "open_store",
)


def test_docstring_examples_run(photos, monkeypatch):
    for package in ("lancedb", "qdrant_client"):
        pytest.importorskip(package, reason="the extra `search`")
    monkeypatch.chdir(photos.parent)
    names = {name: getattr(kbt.search, name) for name in dir(kbt.search)}
    for name in DOCUMENTED:
        (example,) = re.findall(
            r"```python\n(.*?)```", inspect.getdoc(names[name]), re.DOTALL
        )
        exec(example, dict(names))
