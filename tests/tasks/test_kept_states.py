"""States that are kept on disk, in place of pictures and texts."""

import json
import pathlib
import shutil
import sys

import builders
import every_task
import forks
import keras
import launch
import numpy as np
import pytest
import streams
from builders import difference

import keras_bridgetower as kbt
from keras_bridgetower.data import Stream
from keras_bridgetower.data import transform
from keras_bridgetower.distribution.strategy import ProcessError

pytestmark = builders.LONG_ELSEWHERE

TEXTS = ["is it red?", "is it blue?", "what is it?", "red or blue?", "is it?"]


def pictures(count=5, size=(40, 30)):
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 256, (count, *size, 3), dtype="uint8"))


def frozen(task):
    """A task whose fusion alone is trained, from the same weights each time."""
    builders.randomise(task)
    task.backbone.image_tower.trainable = False
    task.backbone.text_tower.trainable = False
    # Adam would make steps of gradients that are 0 but for rounding.
    return builders.eager(task, keras.optimizers.SGD(0.02))


def vqa():
    # A frozen tower has no dropout.
    text = builders.roberta(layers=1, dropout=0.3)
    parts = builders.one_layer_each() | {"text_encoder": text}
    return frozen(builders.vqa(**parts))


def retrieval(**kwargs):
    return frozen(builders.retrieval(projection_dim=8, **kwargs))


def hard_negatives():
    values = {"objective": "hard_negatives", **builders.one_layer_each()}
    return retrieval(**values)


def lists():
    preprocessor = kbt.BridgeTowerListRankingPreprocessor(
        builders.tokenizer(), kbt.BridgeTowerImageConverter(32), list_size=2
    )
    return frozen(kbt.BridgeTowerListRanking(builders.shallow(), preprocessor))


ROWS = np.array([[0, 1], [2, 0], [3, 4], [1, 3], [4, 4]])
# The labels, and the rows of a picture or a list.
CASES = {
    "vqa": (vqa, ["red", "blue", "no", "yes", "red"], np.arange(5)),
    "random_negatives": (retrieval, [0, 1, 2, 1, 3], np.array([0, 1, 2, 1, 3])),
    "hard_negatives": (hard_negatives, [0, 1, 2, 3, 4], np.arange(5)),
    "lists": (lists, [[1, 0], [0, 2], [1, 0], [0, 1], [1, 1]], ROWS),
    "nlvr2": (lambda: frozen(every_task.make("nlvr2")), [1, 0, 1, 0, 1], ROWS),
}


@pytest.mark.parametrize("name", CASES)
def test_training_from_states_equals_training_with_frozen_towers(
    name, tmp_path
):
    make, y, rows = CASES[name]
    taken = pictures()
    x = {"images": [taken[i] for i in rows.reshape(-1)], "text": TEXTS}
    if rows.ndim == 2:
        x["images"] = [[taken[i] for i in row] for row in rows]
    plain, task = make(), make()
    task.set_weights(plain.get_weights())
    images = task.keep_states(tmp_path / "i", images=taken, verbose=0)
    texts = task.keep_states(tmp_path / "t", texts=TEXTS, verbose=0)
    kept = {"images": images[rows], "text": texts}
    given = dict(batch_size=3, verbose=0)
    histories = []
    for model, inputs in ((plain, x), (task, kept)):
        keras.utils.set_random_seed(0)
        histories.append(model.fit(inputs, y, **given).history)
    assert difference(*[h["loss"] for h in histories]) <= 1e-5
    builders.assert_same_weights(plain, task, most=1e-5)
    found = [
        model.evaluate(inputs, y, **given)
        for model, inputs in ((plain, x), (task, kept), (task, x))
    ]
    assert difference(found[0], found[1]) <= 1e-5
    assert difference(found[1], found[2]) <= 1e-5
    # Pictures of the same content, and texts that are no states, go together.
    mixed = {"images": images[rows], "text": TEXTS}
    made = [task.predict(inputs, verbose=0) for inputs in (x, kept, mixed)]
    assert difference(made[0], made[1]) <= 1e-5
    assert difference(made[0], made[2]) <= 1e-5


def test_batches_of_any_source_and_validation_read_states(tmp_path):
    task, other = vqa(), vqa()
    other.set_weights(task.get_weights())
    states = task.keep_states(tmp_path / "s", images=pictures(), verbose=0)
    y = np.array(["red", "blue", "no", "yes", "red"])

    class Batches(keras.utils.PyDataset):
        def __init__(self, images):
            super().__init__()
            self.images = images

        def __len__(self):
            return 2

        def __getitem__(self, number):
            some = slice(2 * number, 2 * number + 2)
            images = self.images[some]
            return {"images": images, "text": TEXTS[some]}, y[some]

    mine, theirs = (
        model.fit(
            Batches(images),
            validation_data=({"images": images, "text": TEXTS}, y),
            verbose=0,
        ).history
        for model, images in ((task, states), (other, pictures()))
    )
    assert difference(mine, theirs) < 1e-5
    x = {"images": states, "text": TEXTS}
    found = task.fit(x, y, validation_split=0.4, verbose=0).history
    assert set(found) == {"loss", "vqa_score", "val_loss", "val_vqa_score"}
    with pytest.raises(ValueError, match="`images` must be states that"):
        task.fit(Batches(kbt.KeptStates(tmp_path / "s")), verbose=0)


@builders.FASTEST
def test_verbs_read_states(tmp_path):
    task, taken = retrieval(), pictures()
    states = task.keep_states(tmp_path / "s", images=taken, verbose=0)
    wanted = task.score(taken, TEXTS)
    assert difference(task.score(states, TEXTS), wanted) <= 1e-5
    texts = task.keep_states(tmp_path / "t", texts=TEXTS, verbose=0)
    assert difference(task.score(states, texts), wanted) <= 1e-5
    other = retrieval()
    for verb in (other.score, other.rank, other.match_logits):
        with pytest.raises(ValueError, match="differs in .*'weights'"):
            verb(states, TEXTS)
    with pytest.raises(ValueError, match="`texts` must be states of the text"):
        task.score(taken, states)
    ranked = [
        task.rank(*given, verbose=0, shortlist=shortlist)
        for given in ((taken, TEXTS), (states, texts))
        for shortlist in (None, 2)
    ]
    assert difference(ranked[0], ranked[2]) <= 1e-5
    assert difference(ranked[1], ranked[3]) <= 1e-5


def test_states_of_texts_are_cut_as_texts_are(tmp_path):
    task = vqa()
    task.preprocessor.buckets = (20, 40)
    texts = task.keep_states(tmp_path / "t", texts=TEXTS, verbose=0)
    made = [
        task.predict({"images": pictures(), "text": given}, verbose=0)
        for given in (TEXTS, texts)
    ]
    assert difference(*made) <= 1e-5
    x = {"image_states": np.zeros((5, 17, 16)), "text_states": texts.read()}
    assert task.preprocessor(x)["token_ids"].shape == (5, 20, 16)


@builders.FASTEST
def test_kinds_have_fewer_bytes(tmp_path):
    task = vqa()
    exact = task.keep_states(tmp_path / "f", images=pictures(), verbose=0)
    for kind, size in (("float16", 17 * 32), ("int8", (17 + 4) * 16)):
        given = dict(images=pictures(), kind=kind, verbose=0)
        states = task.keep_states(tmp_path / kind, **given)
        assert 0 < difference(states.read(), exact.read()) < 0.1
        [rows] = (tmp_path / kind).glob("*.rows")
        assert rows.stat().st_size == 5 * size


@builders.FASTEST
def test_keeping_continues_and_adds(tmp_path):
    task, taken = vqa(), pictures(8)
    folder = tmp_path / "s"
    bad = [*taken[:3], "missing.png"]
    with pytest.raises(OSError):
        task.keep_states(folder, images=bad, verbose=0)
    with pytest.raises(ValueError, match="`folder` must hold what"):
        kbt.KeptStates(folder)
    first = task.keep_states(folder, images=taken[:5], verbose=0).read()
    before = set(folder.glob("*.rows"))
    again = task.keep_states(folder, images=taken[:5], verbose=0)
    assert set(folder.glob("*.rows")) == before
    assert difference(again.read(), first) == 0
    # One that is there twice is kept once, and in each place.
    more = task.keep_states(folder, images=[*taken, taken[0]], verbose=0)
    assert more.shape == (9,)
    assert difference(more[:5].read(), first) == 0
    assert difference(more[8:].read(), first[:1]) == 0
    opened = kbt.KeptStates(folder)
    assert difference(opened[[8, 1]].read(), first[:2]) == 0


def stream(folder, kind, **kwargs):
    rows = [streams.record(kind, i, samples=1) for i in range(5)]
    reader = streams.write(folder, rows, kind)
    return Stream(reader, 2, transform("clip", 32), **kwargs)


@builders.FASTEST
def test_states_of_a_stream_are_in_the_order_of_its_first_epoch(tmp_path):
    data, task, plain = stream(tmp_path / "r", "vqa"), vqa(), vqa()
    plain.set_weights(task.get_weights())
    x = {
        "images": task.keep_states(tmp_path / "i", images=data, verbose=0),
        "text": task.keep_states(tmp_path / "t", texts=data, verbose=0),
    }
    y = np.concatenate([data.batch(number)[1] for number in range(3)])
    given = dict(batch_size=2, shuffle=False, verbose=0)
    found = task.fit(x, y, **given).history["loss"]
    wanted = plain.fit(data.dataset(epochs=1), verbose=0).history["loss"]
    assert difference(found, wanted) <= 1e-5
    pairs = stream(tmp_path / "p", "nlvr2")
    both = task.keep_states(tmp_path / "b", images=pairs, verbose=0)
    x, _ = pairs.batch(0)
    one = task.keep_states(tmp_path / "o", images=x["images"][1], verbose=0)
    assert both.shape == (10,)
    assert difference(both[2:4].read(), one.read()) <= 1e-6
    for other in (
        stream(tmp_path / "h", "vqa", remainder="drop", num_hosts=2),
        stream(tmp_path / "f", "vqa", preprocessor=task.preprocessor),
    ):
        with pytest.raises(ValueError, match="`images` must be a stream of"):
            task.keep_states(tmp_path / "n", images=other, verbose=0)


def keep_with_another_process(folder):
    kind = "data_parallel" if launch.BACKEND == "torch" else "multi_worker"
    strategy = kbt.distribute(kind)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        task = vqa()
    given = dict(batch_size=1, verbose=0)
    with pytest.raises((OSError, ProcessError)):
        bad = [*pictures()[:1], "missing.png"]
        task.keep_states(folder, images=bad, **given)
    assert not (folder / "items.bin").exists()
    states = task.keep_states(folder, images=pictures(), **given)
    task.evaluate({"images": states[:4], "text": TEXTS[:4]}, ["no"] * 4)


def test_two_processes_write_one_folder(tmp_path):
    run, environments = [__file__, tmp_path / "s"], launch.two_processes()
    launch.codes(forks.started([run] * 2, environments))
    states = kbt.KeptStates(tmp_path / "s")
    keras.utils.set_random_seed(0)
    alone = vqa().keep_states(tmp_path / "a", images=pictures(), verbose=0)
    assert difference(states.read(), alone.read()) <= 1e-6
    size = alone[0].read().nbytes
    sizes = [p.stat().st_size for p in (tmp_path / "s").glob("*.rows")]
    # The first was written before the error. On JAX both compute each batch,
    # and one writes.
    wanted = [5] if launch.BACKEND == "jax" else [1, 2, 2]
    assert sorted(sizes) == [size * count for count in wanted]


@builders.FASTEST
def test_variants_are_drawn_in_training_alone(tmp_path):
    task = vqa()
    taken = [np.full((32, 32, 3), 40 * i, "uint8") for i in range(4)]

    def augment(picture, rng):
        return np.full_like(picture, 255)

    given = {"images": taken, "verbose": 0}
    plain = task.keep_states(tmp_path / "p", **given)
    drawn = {"variants": 2, "augment": augment}
    states = task.keep_states(tmp_path / "s", **given, **drawn)
    given["images"] = [augment(taken[0], None)]
    white = task.keep_states(tmp_path / "w", **given)
    assert difference(states.read(), plain.read()) <= 1e-6
    for step in range(3):
        wanted = np.repeat(white.read(), 4, 0)
        assert difference(states.read(step), wanted) <= 1e-6
    # Another function in the same folder: its variants are others.
    drawn["augment"] = lambda picture, rng: np.zeros_like(picture)
    black = task.keep_states(tmp_path / "s", images=taken, verbose=0, **drawn)
    assert difference(black.read(), plain.read()) <= 1e-6
    wanted = np.repeat(plain[:1].read(), 4, 0)
    assert difference(black.read(0), wanted) <= 1e-6
    x = {"images": states, "text": TEXTS[:4]}
    y = ["red", "blue", "no", "yes"]
    wanted = vqa()
    wanted.set_weights(task.get_weights())
    all_white = {"images": white[[0, 0, 0, 0]], "text": TEXTS[:4]}
    a = task.fit(x, y, shuffle=False, verbose=0).history
    b = wanted.fit(all_white, y, shuffle=False, verbose=0).history
    assert difference(a, b) <= 1e-5
    found = task.predict(x, verbose=0)
    expected = task.predict({"images": taken, "text": TEXTS[:4]}, verbose=0)
    assert difference(found, expected) <= 1e-5


@builders.FASTEST
def test_what_does_not_fit_is_refused(tmp_path):
    task = vqa()
    folder = tmp_path / "s"
    states = task.keep_states(folder, images=pictures(), verbose=0)
    texts = task.keep_states(tmp_path / "t", texts=TEXTS, verbose=0)
    y = ["red"] * 5
    task.backbone.image_tower.trainable = True
    builders.eager(task)
    with pytest.raises(ValueError, match="image tower must be frozen"):
        task.fit({"images": states, "text": TEXTS}, y)
    with pytest.raises(ValueError, match="`images` must be states of the im"):
        task.predict({"images": texts, "text": TEXTS})
    with pytest.raises(ValueError, match="same number of items|one row"):
        task.predict({"images": states[:4], "text": TEXTS}, verbose=0)
    weight = task.backbone.image_tower.trainable_weights[0]
    weight.assign(weight + 1)
    with pytest.raises(ValueError, match="differs in .*'weights'"):
        task.predict({"images": states, "text": TEXTS})
    with pytest.raises(ValueError, match="differs in .*'weights'"):
        task.keep_states(folder, images=pictures(), verbose=0)
    with pytest.raises(ValueError, match="differs in .*'kind'"):
        vqa().keep_states(folder, images=pictures(), kind="int8", verbose=0)
    for given in ({}, {"images": pictures(), "texts": TEXTS}):
        with pytest.raises(ValueError, match="One of `images` and `texts`"):
            task.keep_states(tmp_path / "n", **given)
    with pytest.raises(ValueError, match="`texts` must hold at least one"):
        task.keep_states(tmp_path / "n", texts=[])
    one = task.keep_states(tmp_path / "1", texts=TEXTS[0], verbose=0)
    assert one.shape == (1,)
    with pytest.raises(ValueError, match="`variants` needs"):
        task.keep_states(tmp_path / "n", images=pictures(), variants=2)
    mlm = frozen(every_task.make("masked_lm"))
    hidden = mlm.keep_states(tmp_path / "m", texts=TEXTS, verbose=0)
    with pytest.raises(ValueError, match="`text` must be texts, whose tokens"):
        mlm.evaluate({"images": pictures(), "text": hidden}, verbose=0)


def change_identity(folder):
    path = folder / "states.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kind": "int8"}))


def flip(pattern):
    def change(folder):
        path = next(folder.glob(pattern))
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    return change


CHANGES = {
    "identity": change_identity,
    "items": flip("items.bin"),
    "states": flip("*.rows"),
    "no_items": lambda folder: (folder / "items.bin").unlink(),
    "no_states": lambda folder: next(folder.glob("*.rows")).unlink(),
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept") / "s"
    vqa().keep_states(folder, images=pictures(), verbose=0)
    return folder


@builders.FASTEST
@pytest.mark.parametrize("name", CHANGES)
def test_changed_files_are_named(name, kept, tmp_path):
    folder = shutil.copytree(kept, tmp_path / "s")
    CHANGES[name](folder)
    with pytest.raises(ValueError, match="`folder` must hold what.*Delete it"):
        kbt.KeptStates(folder).read()


if __name__ == "__main__":
    keep_with_another_process(pathlib.Path(sys.argv[1]))
