"""Small mistakes of users: one clear error each, if they are mistakes."""

import functools
import json
import pathlib

import every_task
import keras
import numpy as np
import pytest
from builders import ANSWERS
from builders import FASTEST
from builders import backbone
from builders import eager
from builders import features
from builders import preprocessor
from builders import raw
from builders import shallow
from builders import tokenizer
from PIL import Image
from streams import record
from streams import write

import keras_bridgetower as kbt
from keras_bridgetower import analysis
from keras_bridgetower.apps.predict import output
from keras_bridgetower.apps.serve.plan import Limits
from keras_bridgetower.data.records.format import written_without_addresses
from keras_bridgetower.data.records.write import ShardJob
from keras_bridgetower.data.records.write import write_shard
from keras_bridgetower.data.stream.epoch_order import Shuffled
from keras_bridgetower.distribution.strategy import Strategy
from keras_bridgetower.files import one_writer
from keras_bridgetower.files import write_atomically
from keras_bridgetower.metrics.vqa import write_vqa_results
from keras_bridgetower.preprocessing.masking import TokenMasking
from keras_bridgetower.preprocessing.retrieval import as_image_ids
from keras_bridgetower.tasks.ranking import open_cache
from keras_bridgetower.training.recipes import paper
from keras_bridgetower.training.runs.places import RunFolder

pytestmark = FASTEST
SIDE = 32


@pytest.fixture(scope="module")
def model():
    return backbone()


EASY = "bridgetower_tiny_easy_"
DUCK = str(pathlib.Path(__file__).parents[2] / "examples/drawings/duck.png")
RED, TEXT = np.full((64, 64, 3), (255, 0, 0), "uint8"), "a red circle"
RAW = {"images": [RED, RED], "text": [TEXT, TEXT]}


class Own(kbt.BridgeTowerTask):
    def __init__(self, backbone, preprocessor=None, **kwargs):
        head = {"num_classes": 2, "answers": ["a", "b"], "head_hidden_scale": 2}
        super().__init__(backbone, preprocessor, {"vqa": head}, **kwargs)


@functools.cache
def opened(name):
    return getattr(kbt, f"BridgeTower{name}").from_preset(EASY + name.lower())


BACKBONE = kbt.BridgeTowerBackbone.from_preset
# Task, what is done with it, and the words that name the fix.
MISTAKES = [
    ("VQA", lambda t: t.answer(TEXT, DUCK), "`images` must come first.*swap"),
    ("Retrieval", lambda t: t.score([TEXT], [DUCK]), "`images` must.*swap"),
    ("Contrastive", lambda t: t.embed(TEXT), r"by `embed\(texts=...\)`"),
    (
        *("VQA", lambda t: t.predict({"image": [RED], "text": [TEXT]})),
        "Rename 'image' to 'images'",
    ),
    ("VQA", lambda t: t(RAW), r"inputs=\['images', 'text'\]"),
    (
        *("VQA", lambda t: t.compile(loss="sparse_categorical_crossentropy")),
        r"`keras.losses.SparseCategoricalCrossentropy\(from_logits=True\)`",
    ),
    ("VQA", lambda t: type(t).from_preset(EASY + "vqaa"), f"mean {EASY}vqa"),
    ("VQA", lambda _: BACKBONE("bridgetower_bse"), "mean bridgetower_base"),
]


@pytest.mark.parametrize("name, call, fix", MISTAKES)
def test_errors_name_the_fix(name, call, fix):
    with pytest.raises(ValueError, match=fix):
        call(opened(name))


def test_a_task_without_a_method_names_it(model):
    with pytest.raises(TypeError, match="`Own` must define `outputs_of`"):
        Own(model)
    with pytest.raises(TypeError, match="`Own` must define `head_arguments`"):
        Own.from_preset(EASY + "vqa")


ORDER = r"`{}` must be a list, in the order .* `sorted\(ids"
PARTS = [tokenizer(), kbt.BridgeTowerImageConverter(SIDE)]
CLASSIFIER, VQA = kbt.BridgeTowerImageClassifier, kbt.BridgeTowerVQA


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda m: CLASSIFIER(m, labels="ab"), "`labels`"),
        (lambda m: CLASSIFIER(m, labels={"a"}), ORDER.format("labels")),
        (
            lambda m: VQA(m, answers=dict.fromkeys(ANSWERS, 0)),
            ORDER.format("answers"),
        ),
        (lambda m: preprocessor(frozenset(ANSWERS)), ORDER.format("answers")),
        (
            lambda m: kbt.BridgeTowerVQAPreprocessor(*PARTS[::-1], ANSWERS),
            "`tokenizer` must be a PackedTokenizer.*Converter",
        ),
        (lambda m: m.with_image_size((32, 32)), "`image_size` .* one integer"),
        (lambda m: VQA.from_preset(None), "`preset` must be one of.*None"),
    ],
)
def test_values_of_the_wrong_kind(make, message, model):
    with pytest.raises(ValueError, match=message):
        make(model)


def test_a_single_picture_or_text_is_used_with_every_other():
    entailment, pairs = map(every_task.make, ("entailment", "nlvr2"))
    texts, two = ["the shape is red.", "the shape is blue."], [RED, 255 - RED]
    for given, rows in (
        ((RED, two, texts[0]), [(RED, right, texts[0]) for right in two]),
        ((RED, RED, texts), [(RED, RED, text) for text in texts]),
    ):
        for found, row in zip(pairs.compare(*given), rows, strict=True):
            truth, share = pairs.compare(*row)
            assert found == (truth, pytest.approx(share, abs=1e-6))
    found = entailment.entail(RED, texts)
    for (label, shares), text in zip(found, texts, strict=True):
        expected = entailment.entail(RED, text)
        assert label == expected[0]
        assert shares == pytest.approx(expected[1], abs=1e-6)


def test_features_of_other_shapes(model):
    task = VQA(model, answers=ANSWERS)
    made = features()
    with pytest.raises(ValueError, match=r"^`x\[.images.\]` must hold several"):
        task.predict({name: np.array(0) for name in made}, verbose=0)
    text = {k: v for k, v in features(tokens=80).items() if k != "images"}
    with pytest.raises(ValueError, match="at most 64 tokens"):
        model.text_tower(text)


def test_pictures_of_a_map_are_those_that_were_given(model):
    """Whatever the image converter subtracts from them."""
    converter = kbt.BridgeTowerImageConverter(
        SIDE, mean=(0.5, 0.4, 0.3), std=(0.25, 0.5, 0.125)
    )
    task = VQA(
        model, kbt.BridgeTowerVQAPreprocessor(tokenizer(), converter, ANSWERS)
    )
    given = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), "uint8")
    seen = analysis.attention_map(task, given, "is it red?")
    assert np.abs(seen.pictures[0] - given / 255).max() <= 1e-6


def test_labels_in_the_order_of_another_list(caplog):
    """One hot, by answers that were sorted: nothing but the loss tells."""
    task = VQA.from_preset("bridgetower_tiny_easy_vqa")
    task.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    x = {"images": np.full((4, 64, 64, 3), 255, "uint8")}
    x["text"] = ["what color is the shape?"] * 4
    said = task.answer(x["images"][0], x["text"][0])[0][0]
    task.fit(x, [said] * 4, verbose=0)
    assert not caplog.records
    hot = np.zeros((4, len(task.answers)))
    hot[:, sorted(task.answers).index(said)] = 1
    task.fit(x, hot, epochs=2, verbose=0)
    (told,) = caplog.records
    assert "in the order of `task.class_names`" in told.getMessage()
    assert "the 9.0 of a head that knows nothing" in told.getMessage()
    caplog.clear()
    # Weights make a loss large too.
    ids = [task.answers.index(said)] * 4
    task.fit(x, ids, class_weight=dict.fromkeys(range(13), 9.0), verbose=0)
    task.fit(x, hot, sample_weight=np.full(4, 2.0), verbose=0)
    assert not caplog.records


@pytest.mark.parametrize("size", [0, 2.0])
def test_sizes_of_batches(model, size):
    task = VQA(model, preprocessor())
    x, y = raw()
    for call, *given in (
        (task.fit, x, y),
        (task.evaluate, x, y),
        (task.predict, x),
        (task.answer, x["images"][0], "is it?"),
    ):
        with pytest.raises(ValueError, match="`batch_size` must be an integer"):
            call(*given, batch_size=size)


def test_weights_of_rows(model):
    task, (x, y) = eager(VQA(model, preprocessor())), raw()
    given = [2.0, 0.0, 1.0, 0.5]
    expected = task.evaluate(x, y, sample_weight=np.array(given), verbose=0)
    found = task.evaluate(((x, y, given) for _ in "ab"), steps=1, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    for wrong in ([np.nan] * 4, ["1"] * 4):
        with pytest.raises(ValueError, match="`sample_weight`"):
            task.evaluate(x, y, sample_weight=wrong, verbose=0)


def _context(context):
    with context:
        pass


def _index(path, store):
    pytest.importorskip("lancedb", reason="the extra `search`")
    pytest.importorskip("qdrant_client", reason="the extra `search`")
    preset = "bridgetower_tiny_easy_contrastive"
    pictures = path.parent / "pictures"
    pictures.mkdir()
    Image.new("RGB", (SIDE, SIDE)).save(pictures / "a.png")
    kbt.search.PictureSearch(f"{store}{path}", preset).index(pictures)


# Each writes to a path.
OUTPUTS = {
    "predict": lambda path: _context(output.prediction_file(path, {})),
    "predict on many machines": lambda path: _context(output.locked(path)),
    "build": lambda path: write(path, [record("vqa", 0)], num_shards=1),
    "part of a shard": lambda path: write_shard(
        ShardJob(str(path).removesuffix(".part"), "rows", 0, 1)
    ),
    "run": lambda path: _context(RunFolder(path).exclusive(Strategy())),
    "lancedb": lambda path: _index(path, ""),
    "qdrant": lambda path: _index(path, "qdrant:"),
    "preset": lambda path: shallow().save_to_preset(path),
    "export": lambda path: shallow().export(path, format="torch"),
    "cache of rank": lambda path: open_cache(path, {}),
    "part of a file": lambda path: write_atomically(
        str(path).removesuffix(".part"), lambda file: file.write(b"1")
    ),
    "lock": lambda path: _context(one_writer(path, "refused")),
    "answers": lambda path: write_vqa_results(path, [1], ["red"]),
}


@pytest.mark.parametrize("output", OUTPUTS)
def test_outputs_that_are_links_are_refused(output, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    link = tmp_path / "link.part"
    link.symlink_to(tmp_path / "nothing")
    with pytest.raises(ValueError, match="not be a link. Give the path") as e:
        OUTPUTS[output](link)
    assert str(tmp_path / "nothing") in str(e.value)
    for target in ("folder", "file"):
        link.unlink()
        link.symlink_to(tmp_path / target)
        # Some say first that it exists, or is no folder.
        with pytest.raises((ValueError, OSError)):
            OUTPUTS[output](link)
    assert not list((tmp_path / "folder").iterdir())
    assert not (tmp_path / "nothing").exists()
    assert (tmp_path / "file").read_text() == ""


def recipe(name, value):
    made = paper.get("vqa_base").replace(**{name: value})
    return getattr(made, name)


def converter(**sizes):
    made = kbt.BridgeTowerImageConverter(**{"image_size": 9} | sizes)
    return {name: made.get_config()[name] for name in sizes}


def masked(count):
    ids = np.arange(3, 9)
    values = dict(mask_token_id=4, special_token_ids=(), vocabulary_size=9)
    masking = TokenMasking(**values, sequence_length=6, max_masks=count)
    made = masking(ids, np.ones_like(ids), seed=0)
    return made["mask_positions"].tolist()


# Each makes something of 3, and returns what of it is written to files.
USES = {
    "batch_size of a recipe": lambda n: recipe("batch_size", n),
    "window": lambda n: written_without_addresses(Shuffled(n)),
    "size_divisor": lambda n: converter(size_divisor=n),
    "sequence_length": lambda n: tokenizer(n).get_config()["sequence_length"],
    "max_masks": masked,
    "image ids": lambda n: as_image_ids(np.array([n, "a"], object)).tolist(),
}


@pytest.mark.parametrize("name", USES)
def test_integers_of_numpy_are_integers(name):
    use = USES[name]
    expected = json.dumps(use(3))
    for kind in (np.int64, np.int32, np.uint8):
        assert json.dumps(use(kind(3))) == expected
    for wrong in (True, np.True_, 2.5):
        with pytest.raises(ValueError, match="Received"):
            use(wrong)


def test_streams_and_records_count_by_integers_of_numpy(tmp_path):
    task = "text_classification"
    records = [record(task, i) for i in range(4)]
    reader = write(tmp_path / "a", records, task, num_shards=np.int64(2))
    assert len(reader.shards) == 2
    given = dict(batch_size=4, num_hosts=2, host=0, seed=3)
    expected = kbt.Stream(reader, **given)
    found = kbt.Stream(reader, **{k: np.int64(v) for k, v in given.items()})
    assert json.dumps(found.identity) == json.dumps(expected.identity)
    assert found.ids(0) == expected.ids(0)
    with pytest.raises(ValueError, match="`num_hosts`"):
        kbt.Stream(reader, **given | {"num_hosts": True})
    with pytest.raises(ValueError, match="`num_shards`"):
        write(tmp_path / "b", records, task, num_shards=True)


@pytest.mark.parametrize("value", [0, "5", True, np.nan])
def test_limits_refuse_what_are_no_seconds(value):
    with pytest.raises(ValueError, match="`seconds` must be a number above 0"):
        Limits(seconds=value)
