"""KerasHub's own test suite, run on each registered class of this library.

Its methods are unchanged. `DIFFERENCES` has what they find that differs on
purpose.
"""

import contextlib
import functools
import pathlib
from typing import Any
from typing import NamedTuple

import every_task
import keras
import numpy as np
import pytest
from builders import LONG_ELSEWHERE
from builders import SIDE
from builders import deit
from builders import features
from builders import long_but
from builders import resnet
from builders import roberta
from builders import shallow
from builders import tokenizer
from builders import vit

import keras_bridgetower as kbt
from keras_bridgetower import training

pytest.importorskip("grain", reason="KerasHub's tests import it")
from keras_hub.src.tests.test_case import TestCase  # noqa: E402

BACKEND = keras.config.backend()
D, ROWS = 8, 2


def floats(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def cls(name):
    """The class that is registered under a name, of which this is a case."""
    name = name.partition(",")[0]
    return keras.saving.get_registered_object(f"keras_bridgetower>{name}")


# --- Layers ---


class Row(NamedTuple):
    """A layer or model.

    Args:
        values: dict of constructor arguments, or a function that returns it.
        inputs: an array, or a dict of arrays by argument.
        shape: of the output, or a structure of shapes.
        trained, frozen: numbers of weights.
        seeds: number of the other variables, which are states of seeds.
    """

    values: Any
    inputs: Any
    shape: Any = None
    trained: int = 0
    frozen: int = 0
    seeds: int = 0

    def made(self):
        return dict(self.values() if callable(self.values) else self.values)


TEXT, IMAGE, POOLED = floats(ROWS, 5, D), floats(ROWS, 7, D), floats(ROWS, D)
PICTURES, STATES = floats(ROWS, SIDE, SIDE, 3), floats(ROWS, 3, 5, D)
SAME, OTHER, LONGER = TEXT.shape, IMAGE.shape, (ROWS, 6, D)
MASK = np.ones((ROWS, 5), "int32")
TEXTS = {k: v for k, v in features().items() if k != "images"}
STEP = {"hidden_dim": D, "num_heads": 2, "intermediate_dim": 2 * D}
BOTH = {"text_query": TEXT, "image_query": IMAGE, "text": TEXT, "image": IMAGE}
KINDS = ("text", "image", "fused")
BRIDGES = dict(Add=2, Multiply=2, Interpolate=3, Gate=4, Linear=4, MLP=6)
BRIDGES |= dict(CrossAttention=10, CrossAttentionFFN=14, AddLinear=4)
BRIDGES |= dict(ScaledAdd=3, InterpolateScalar=3)
LAYERS = {
    **{
        f"{kind}Bridge": Row(
            *({"hidden_dim": D}, {"x": TEXT, "y": TEXT + 1}, SAME, trained)
        )
        for kind, trained in BRIDGES.items()
    },
    **{
        f"{kind}Manager": Row(
            *({"hidden_dim": D, "num_states": 3}, STATES, SAME, trained),
            seeds=1,
        )
        for kind, trained in dict(First=8, Static=11, Adaptive=18).items()
    },
    "CrossModalEncoder": Row(
        {"hidden_dim": D, "num_heads": 2, "num_layers": 2},
        *(STATES, {"text": SAME, "image": SAME, "pooled": (ROWS, 2 * D)}),
        # Types; projections, entries and bridges; layers; poolers.
        1 + 6 * 2 + 4 * 26 + 2 * 2,
        seeds=4 * 3,
    ),
    "BridgeTowerAttention": Row(
        {"num_heads": 2, "key_dim": 4}, {"query": TEXT, "value": IMAGE}, SAME, 8
    ),
    "CrossModalLayer": Row(
        STEP, {"query": TEXT, "own": TEXT, "other": IMAGE}, SAME, 26, seeds=3
    ),
    "CoAttention": Row(STEP, BOTH, (SAME, OTHER), 2 * 26, seeds=2 * 3),
    "MergedAttention": Row(STEP, BOTH, (SAME, OTHER), 16, seeds=2),
    "MeanSummary": Row({}, TEXT, LONGER),
    "EndSummary": Row({"replaces": 1}, {"x": TEXT, "padding_mask": MASK}, SAME),
    "LastSummary": Row({"replaces": 1}, TEXT, SAME),
    "LearnedSummary": Row({}, TEXT, LONGER, 1),
    "AttentionPoolSummary": Row({}, TEXT, LONGER, 1),
    "SameGrid": Row({"size": (2, 2)}, floats(ROWS, 4, 4, D), (ROWS, 4, D)),
    "Coordinates": Row({"size": (2, 2)}, TEXT[:, :4], (ROWS, 4, D + 10)),
    "ClassifierHead": Row(
        *({"num_classes": 3, "hidden_dim": D}, POOLED, (ROWS, 3), 6)
    ),
    "LinearHead": Row({"num_classes": 3}, POOLED, (ROWS, 3), 2),
    "SimilarityHead": Row({}, STATES, (ROWS, 2), 3),
    "TextHead": Row({"num_classes": 3}, TEXT, (ROWS, 3), 4, seeds=1),
    "MaskedLMHead": Row({"vocabulary_size": 9}, TEXT, (ROWS, 5, 9), 6),
    "ContrastiveHead": Row(
        *({"projection_dim": 4}, STATES, dict.fromkeys(KINDS, (ROWS, 4)), 7)
    ),
    "PaddedPositions": Row(
        *({}, {"tokens": TEXT, "positions": TEXT, "padding_mask": MASK}),
        *(SAME, 1, 1),
    ),
    # ViT's patches, class token and positions, two blocks and a layer norm.
    "Tower": Row(
        lambda: {"encoder": vit(layers=2), "taps": (-2, -1)},
        *(PICTURES, [(ROWS, 17, 16)] * 2, 4 + 2 * 16 + 2),
    ),
}
# They wrap layers of an encoder, from which a tower makes them anew.
WRAPPERS = ("AllPositions", "FirstOutput", "PartOfStage", "Patches")
WRAPPERS += ("TokenLookup",)
# Layers whose arguments are lists or dicts, and a call with three states.
WITH_LISTS = {
    "FirstManager": lambda layer, x: layer(x),
    "StaticManager": lambda layer, x: layer(x, x[0]),
    "AdaptiveManager": lambda layer, x: layer(x, x[0], x[1]),
    "CrossModalEncoder": lambda layer, x: layer(x[:2], x[:2]),
    "ContrastiveHead": lambda layer, x: layer(
        {kind: state[:, 0] for kind, state in zip(KINDS, x, strict=True)}
    ),
    "SimilarityHead": lambda layer, x: layer(
        {"pooled": x[0][:, 0], "similarity": x[1][:, 0, 0]}
    ),
}


@keras.saving.register_keras_serializable("test_keras_hub")
class OfStates(keras.layers.Layer):
    """One of `WITH_LISTS`, called with a tensor `(batch, 3, tokens, D)`.

    `run_layer_test` calls layers with a tensor for each argument.
    """

    def __init__(self, kind, values, **kwargs):
        super().__init__(**kwargs)
        self.kind, self.values = kind, values
        self.inner = cls(kind)(**values, dtype=self.dtype_policy)

    def build(self, shape):
        self.call(keras.KerasTensor(shape))

    def call(self, x):
        states = keras.ops.unstack(x, axis=1)
        return WITH_LISTS[self.kind](self.inner, states)

    def get_config(self):
        own = {"kind": self.kind, "values": self.values}
        return {**super().get_config(), **own}


# --- Models ---


def whole(prefix=1, image_encoder=vit, **values):
    def made():
        # The test of quantization finds layers by names; CLIP generates names.
        encoders = {
            "image_encoder": image_encoder(layers=2),
            "text_encoder": roberta(layers=2),
        }
        sizes = {"hidden_dim": 16, "num_heads": 2, "num_layers": 2}
        return sizes | encoders | values

    image = (3, prefix + 16, 16)
    shape = {"text": (3, 6, 16), "image": image, "pooled": (3, 32)}
    return Row(made, features(), shape)


def classified():
    return {"encoder": resnet(), "num_classes": 5}


BACKBONES = {
    "BridgeTowerBackbone": whole(),
    # DeiT has two tokens of its own.
    "BridgeTowerBackbone, adaptive": whole(
        *(2, deit), image_norms="per_tap", bridge="adaptive_manager"
    ),
    "BridgeTowerBackbone, merged": whole(
        projections="per_layer",
        taps=(-2, None),
        bridge="gate",
        cross_encoder="merged_attention",
    ),
    "PaddedRobertaBackbone": Row(
        {"vocabulary_size": 300, "num_layers": 1, **STEP}, TEXTS, (3, 6, D)
    ),
    "ClassifiedEncoder": Row(classified, PICTURES, (ROWS, 4, 4, 5)),
}
OF_TEXTS = Row(lambda: {"encoder": roberta(), "taps": (-2, -1)}, TEXTS)
MODELS = BACKBONES | {"Tower": LAYERS["Tower"], "Tower, of texts": OF_TEXTS}

# --- Tasks and preprocessing ---

LISTS = every_task.Case(
    "ListRanking", [[1.0, 0.0]] * 4, {}, {"list_size": 2}, pictures=2
)
TASKS = every_task.TASKS | {"list_ranking": LISTS}


def samples(name):
    """Raw inputs of four samples and, if they have some, their labels."""
    x = every_task.raw("nlvr2" if name == "list_ranking" else name)
    x, y = every_task.as_arrays(x), TASKS[name].y
    return (x,) if y is None else (x, np.array(y))


def preprocessing(name):
    """Constructor arguments of the preprocessor of a task."""
    case = TASKS[name]
    parts = {
        "text": ("tokenizer", tokenizer(24)),
        "images": ("image_converter", kbt.BridgeTowerImageConverter(SIDE)),
    }
    return dict(parts[key] for key in case.names) | case.to_preprocess


def of_task(name):
    """Constructor arguments of a task, and features."""
    case = TASKS[name]
    preprocessor = case.preprocessor(**preprocessing(name))
    values = {"preprocessor": preprocessor, **case.values}
    return {"backbone": shallow(), **values}, in_features(name, preprocessor)


def in_features(name, preprocessor):
    made = preprocessor(*samples(name))
    return made[0] if isinstance(made, tuple) else made


def ids(*words):
    return {word: number for number, word in enumerate(words)}


WORDS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>", "is", "it", "red")
BERT_WORDS = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]", *WORDS[5:])
PIECES = {"type": "WordPiece", "unk_token": "<unk>", "vocab": ids(*WORDS)}
PIECES |= {"continuing_subword_prefix": "##", "max_input_chars_per_word": 9}
JSON = {
    "model": PIECES,
    "pre_tokenizer": {"type": "Whitespace"},
    "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
}
BYTES = {"vocabulary": ids(*tokenizer().get_vocabulary()), "merges": []}
SENTENCES = ["is it", "it is red"]
PARTS = {
    "BridgeTowerTokenizer": (BYTES, SENTENCES),
    "BridgeTowerBertTokenizer": ({"vocabulary": ids(*BERT_WORDS)}, SENTENCES),
    "BridgeTowerJsonTokenizer": ({"vocabulary": JSON}, SENTENCES),
    "BridgeTowerImageConverter": (
        {"image_size": 64, "mode": "hf", "size_divisor": 16},
        samples("vqa")[0]["images"],
    ),
}
SCHEDULE = dict(peak=1e-3, total_steps=100, warmup=7, power=2.0, end=1e-5)
# What has a configuration alone.
PLAIN = {name: LAYERS[name].values for name in WITH_LISTS} | {
    "ContrastiveLoss": {"ways": "two_way"},
    "LambdaRankLoss": {"name": "lambda"},
    "ListDistillationLoss": {"temperature": 2.0},
    "ListwiseSoftmaxLoss": {},
    "MarginMSELoss": {},
    "MaskedLMLoss": {"ignore_id": -1},
    "VQALoss": {},
    "ContrastiveAccuracy": {"ways": "two_way"},
    "MaskedTokenAccuracy": {"ignore_id": 0, "name": "acc"},
    "NDCG": {"k": 2},
    "VQAScore": {},
    "WarmupPolynomial": SCHEDULE,
    training.AdamW.__name__: {
        "learning_rate": training.WarmupPolynomial(**SCHEDULE),
        "rows": (("head", 5.0), (".*", 1.0)),
        "decay": "sane",
        "global_clipnorm": 1.0,
    },
}

# --- The tests ---

HEADS = [name for name in LAYERS if name.endswith("Head")]
OF_ENCODER = "multiple values for keyword argument 'dtype'"
NO_DTYPE = "unexpected keyword argument 'dtype'"
UNEQUAL = "Not equal to tolerance"
# Messages, by method and case.
DIFFERENCES = {
    # Logits and vectors are float32 with any policy.
    **{("precision", name): r"\+ float16" for name in HEADS},
    # They have the dtype of their encoder.
    ("precision", "Tower"): NO_DTYPE,
    ("precision", "Tower, of texts"): NO_DTYPE,
    ("precision", "ClassifiedEncoder"): OF_ENCODER,
    ("quantization", "ClassifiedEncoder"): OF_ENCODER,
    # Models are saved in int8 and int4; a tower is saved by its backbone.
    **{
        ("quantization", name): "quantized to float8"
        for name in BACKBONES
        if "Tower" in name
    },
    ("quantization", "Tower"): NO_DTYPE,
    ("quantization", "Tower, of texts"): NO_DTYPE,
    # They draw from the rows of a batch, anew for each one, and what is drawn
    # comes with the features.
    ("preprocessor", "masked_lm"): UNEQUAL,
    ("preprocessor", "retrieval"): "Assert",
    ("preprocessor", "pretraining"): "batch",
    ("task", "masked_lm"): UNEQUAL,
    ("task", "retrieval"): "match|arity",
    ("task", "pretraining"): UNEQUAL,
}
if BACKEND != "tensorflow":  # There KerasHub does not ask it of processors.
    DIFFERENCES["backbone", "ClassifiedEncoder"] = "`data_format` must be"


@contextlib.contextmanager
def hub(method, name):
    """Give KerasHub's methods; expect what `DIFFERENCES` says, or no error."""
    found = contextlib.nullcontext()
    if (method, name) in DIFFERENCES:
        found = pytest.raises(Exception, match=DIFFERENCES[method, name])
    try:
        with found:
            yield TestCase("run_layer_test")
    finally:
        # A method that ends early leaves another one.
        keras.config.set_image_data_format("channels_last")


def each(cases, *always):
    """All cases on PyTorch; elsewhere a few, and by `-m slow` the others."""
    return pytest.mark.parametrize(
        "name", cases if BACKEND == "torch" else long_but(cases, *always)
    )


not_on_torch = pytest.mark.skipif(
    BACKEND == "torch", reason="without a GPU the method returns at once"
)
MERGED = "BridgeTowerBackbone, merged"
# All tasks are trained and saved in `conformance`, too.
FEW_TASKS = ["text_classifier", *["vqa"] * (BACKEND == "torch")]
SOME_TASKS = pytest.mark.parametrize("name", long_but(TASKS, *FEW_TASKS))


def called(name):
    """The class, constructor arguments and inputs of a layer or model."""
    row = (LAYERS | MODELS)[name]
    made, values = cls(name), row.made()
    if name in WITH_LISTS:
        made, values = OfStates, {"kind": name, "values": values}
    convert = keras.ops.convert_to_tensor
    return made, values, keras.tree.map_structure(convert, row.inputs)


@pytest.mark.filterwarnings("ignore:Gradients do not exist.*logit_scale")
@each(LAYERS, "CrossAttentionBridge", "StaticManager")
def test_layer(name):
    row = LAYERS[name]
    with hub("layer", name) as case:
        case.run_layer_test(
            *called(name),
            row.shape,
            expected_num_trainable_weights=row.trained,
            expected_num_non_trainable_weights=row.frozen,
            expected_num_non_trainable_variables=row.frozen + row.seeds,
            run_training_check=row.trained > 0,
            run_precision_checks=False,
        )


@not_on_torch
@each(LAYERS | MODELS, "StaticManager", "LinearHead", "Tower")
def test_precision(name):
    with hub("precision", name) as case:
        case.run_precision_test(*called(name))


@not_on_torch
@each(MODELS, MERGED)
def test_quantization(name):
    made, values, inputs = called(name)
    with hub("quantization", name) as case:
        case.run_quantization_test(made(**values), made, values, inputs)


@each(BACKBONES, MERGED)
def test_backbone(name):
    values = {}
    if "Tower" in name:
        # By default pictures would be cut, too.
        texts = [features(tokens=count) for count in (2, 3, 4)]
        values["variable_length_data"] = texts
    with hub("backbone", name) as case:
        run = case.run_backbone_test
        if name == "ClassifiedEncoder":
            run = case.run_vision_backbone_test
        run(
            *(*called(name), BACKBONES[name].shape),
            run_mixed_precision_check=False,
            run_quantization_check=False,
            **values,
        )


@each(MODELS, MERGED)
def test_saving(name):
    with hub("saving", name) as case:
        case.run_model_saving_test(*called(name))


@each(LAYERS, "StaticManager")
def test_saving_of_layers(name):
    layer, x = cls(name)(**LAYERS[name].made()), LAYERS[name].inputs
    call = layer
    if name in WITH_LISTS:
        x = list(x.swapaxes(0, 1))
        call = functools.partial(WITH_LISTS[name], layer)

    def made(x, name=None):
        return keras.Input(x.shape[1:], dtype=str(x.dtype), name=name)

    if isinstance(x, dict):
        given = {key: made(value, key) for key, value in x.items()}
        outputs = layer(**given)
    else:
        given = keras.tree.map_structure(made, x)
        outputs = call(given)
    values = {"inputs": given, "outputs": outputs}
    with hub("saving", name) as case:
        case.run_model_saving_test(keras.Model, values, x)


@SOME_TASKS
def test_task(name):
    values, _ = of_task(name)
    with hub("task", name) as case:
        case.run_task_test(TASKS[name].task, values, samples(name), None, 4)


@SOME_TASKS
def test_saving_of_tasks(name):
    with hub("saving", name) as case:
        case.run_model_saving_test(TASKS[name].task, *of_task(name))


@pytest.mark.filterwarnings("ignore:.*texts cut")
@LONG_ELSEWHERE
@pytest.mark.parametrize("name", TASKS)
def test_preprocessor(name):
    values, (x, *y) = preprocessing(name), samples(name)
    with hub("preprocessor", name) as case:
        case.init_kwargs, run = values, case.run_preprocessor_test
        if "text" not in TASKS[name].names:
            run = case.run_preprocessing_layer_test
        run(TASKS[name].preprocessor, values, (x, *y) if y else x)


@LONG_ELSEWHERE
@pytest.mark.parametrize("name", PARTS)
def test_part_of_a_preprocessor(name):
    with hub("part", name) as case:
        case.run_preprocessing_layer_test(cls(name), *PARTS[name])


SHIPPED = {name: name for name in ("vqa", "contrastive", "entailment", "nlvr2")}
SHIPPED |= dict(retrieval="retrieval", masked_lm="mlm", pretraining="pretrain")


@LONG_ELSEWHERE
@pytest.mark.parametrize("name", long_but(SHIPPED, "vqa"))
def test_preset(name):
    case, preset = TASKS[name], f"bridgetower_tiny_easy_{SHIPPED[name]}"
    given = samples(name)
    x = in_features(name, case.preprocessor.from_preset(preset))
    parts = [(case.preprocessor, given), (case.task, x)]
    if name == "vqa":
        parts += [
            (kbt.BridgeTowerBackbone, x),
            (kbt.BridgeTowerTokenizer, list(given[0]["text"])),
            (kbt.BridgeTowerImageConverter, given[0]["images"]),
        ]
    with hub("preset", name) as tests:
        for part, inputs in parts:
            tests.run_preset_test(part, preset, inputs)


@LONG_ELSEWHERE
@pytest.mark.parametrize("name", PLAIN)
def test_serialization(name):
    with hub("serialization", name) as case:
        case.run_serialization_test(cls(name)(**PLAIN[name]))


def test_no_class_is_forgotten():
    names = pathlib.Path(__file__).parents[1] / "contracts/registered_names.txt"
    tested = {*LAYERS, *WRAPPERS, *PARTS, *PLAIN}
    tested |= {name.partition(",")[0] for name in MODELS}
    for case in TASKS.values():
        tested |= {case.task.__name__, case.preprocessor.__name__}
    registered = [name.partition(">")[2] for name in names.read_text().split()]
    assert sorted(tested) == sorted(registered)
