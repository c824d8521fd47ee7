"""Tiny models and inputs for the tests."""

import math

import keras
import keras_hub
import numpy as np
import pytest
from keras import ops

import keras_bridgetower as kbt

SIDE, PATCH, VOCABULARY = 32, 8, 300
ANSWERS = ["yes", "no", "red", "blue"]


def clip(width=16, layers=3, heads=2, side=SIDE, patch=PATCH, **kwargs):
    return keras_hub.models.CLIPVisionEncoder(
        patch_size=patch,
        hidden_dim=width,
        num_layers=layers,
        num_heads=heads,
        intermediate_dim=4 * width,
        image_shape=(side, side, 3),
        **kwargs,
    )


def vit(width=16, layers=3, side=SIDE, cls="ViT", mlp="mlp_dim", **kwargs):
    return getattr(keras_hub.models, f"{cls}Backbone")(
        image_shape=(side, side, 3),
        patch_size=PATCH,
        num_layers=layers,
        num_heads=2,
        hidden_dim=width,
        **{mlp: 2 * width},
        **kwargs,
    )


def resnet():
    """Two stages, whose maps have 64 and 16 channels."""
    return keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 16],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(SIDE, SIDE, 3),
    )


def deit(*args, **kwargs):
    return vit(*args, cls="DeiT", mlp="intermediate_dim", **kwargs)


def roberta(
    width=16, layers=2, heads=2, vocabulary=VOCABULARY, dropout=0.0, **kwargs
):
    return keras_hub.models.RobertaBackbone(
        vocabulary_size=vocabulary,
        num_layers=layers,
        num_heads=heads,
        hidden_dim=width,
        intermediate_dim=4 * width,
        max_sequence_length=64,
        dropout=dropout,
        **kwargs,
    )


def bert(width=24, layers=3, **kwargs):
    return keras_hub.models.BertBackbone(
        vocabulary_size=VOCABULARY,
        num_layers=layers,
        num_heads=2,
        hidden_dim=width,
        intermediate_dim=2 * width,
        max_sequence_length=64,
        dropout=0.0,
        **kwargs,
    )


def backbone(image_encoder=None, text_encoder=None, **kwargs):
    values = dict(hidden_dim=16, num_heads=2, num_layers=2, dropout=0.0)
    return kbt.BridgeTowerBackbone(
        image_encoder or clip(), text_encoder or roberta(), **values | kwargs
    )


def one_layer_each():
    """Arguments of a backbone that compiles in less time."""
    return {
        "image_encoder": clip(layers=1),
        "text_encoder": roberta(layers=1),
        "num_layers": 1,
    }


def shallow(**kwargs):
    """A backbone of one layer each."""
    return backbone(**one_layer_each(), **kwargs)


def features(model=None, batch=3, tokens=6, side=SIDE, seed=0):
    """Random features, the later rows shorter than the first."""
    rng = np.random.default_rng(seed)
    mask = np.ones((batch, tokens), "int32")
    for row in range(batch):
        mask[row, tokens - row % 3 :] = 0
    ids = rng.integers(5, 60, (batch, tokens)).astype("int32")
    made = {
        "images": rng.normal(size=(batch, side, side, 3)).astype("float32"),
        "token_ids": np.where(mask == 1, ids, 1).astype("int32"),
        "padding_mask": mask,
    }
    if model is not None and "segment_ids" in model.input:
        made["segment_ids"] = np.zeros_like(mask)
    return made


def randomise(model, scale=0.2, seed=1):
    """Other weights than the gentle initial ones, the same on any backend."""
    rng = np.random.default_rng(seed)
    for weight in sorted(model.weights, key=lambda w: w.path):
        if str(weight.dtype).startswith("float"):
            noise = rng.normal(size=weight.shape, scale=scale)
            weight.assign(array(weight) * 0.5 + noise)
    return model


def tokenizer(sequence_length=40):
    """A byte-level vocabulary without merges."""
    from tokenizers.pre_tokenizers import ByteLevel

    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokens += sorted(ByteLevel.alphabet())
    return kbt.BridgeTowerTokenizer(
        {token: i for i, token in enumerate(tokens)}, [], sequence_length
    )


def preprocessor(answers=ANSWERS, side=SIDE, **kwargs):
    return kbt.BridgeTowerVQAPreprocessor(
        tokenizer(), kbt.BridgeTowerImageConverter(side), answers, **kwargs
    )


def vqa(**kwargs):
    return kbt.BridgeTowerVQA(backbone(**kwargs), preprocessor())


def retrieval(objective="random_negatives", projection_dim=None, **kwargs):
    """A task for matching on the tiny backbone."""
    preprocessor = kbt.BridgeTowerRetrievalPreprocessor(
        tokenizer(), kbt.BridgeTowerImageConverter(SIDE), objective
    )
    of_task = {k: kwargs.pop(k) for k in ("ways", "matching") if k in kwargs}
    return kbt.BridgeTowerRetrieval(
        *(backbone(**kwargs), preprocessor, objective, projection_dim),
        **of_task,
    )


def contrastive(ways="three_way", **kwargs):
    """A task of embeddings on the smallest backbone."""
    preprocessor = kbt.BridgeTowerContrastivePreprocessor(
        tokenizer(), kbt.BridgeTowerImageConverter(SIDE)
    )
    return kbt.BridgeTowerContrastive(
        backbone(**one_layer_each() | kwargs),
        preprocessor,
        projection_dim=8,
        ways=ways,
    )


def raw(batch=4, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (batch, 40, 30, 3)).astype("uint8")
    texts = ["is it red?", "is it blue?", "what colour is it?", "red or blue?"]
    x = {"images": images, "text": [texts[i % 4] for i in range(batch)]}
    return x, [ANSWERS[i % 4] for i in range(batch)]


def asking(answers, floor=0.0, share=0.5):
    """A rule with two sorts of questions, and the answers that fit each."""
    only, floor = answers[1:3], float(floor)
    sorts = [
        {"name": "is", "has": [["^ is"], ["red", "blue"]], "only": True},
        {"name": "else", "has": [], "only": False},
    ]
    sorts = [sort | {"answers": only, "floor": floor} for sort in sorts]
    table = {"words": "is it red blue or", "share": share, "skip": ["please"]}
    rule = {"kind": "energy", "threshold": -99.0}
    return rule | {"questions": table | {"sorts": sorts}}


def array(tensor):
    return ops.convert_to_numpy(tensor)


def difference(a, b):
    """Largest difference of two arrays or dicts of arrays."""
    if isinstance(a, dict):
        assert set(a) == set(b)
        return max(difference(a[key], b[key]) for key in a)
    a, b = (np.asarray(array(x), "float64") for x in (a, b))
    assert a.shape == b.shape
    return float(np.abs(a - b).max())


def assert_same_weights(model, other, most=0):
    """Weights of two models, or lists: of the same types, and equal.

    `most` is the largest difference, by default none.
    """
    weights = (
        each.weights if isinstance(each, keras.Layer) else each
        for each in (model, other)
    )
    for a, b in zip(*weights, strict=True):
        path = getattr(a, "path", "")
        assert a.dtype == b.dtype, path
        if most == 0:
            np.testing.assert_array_equal(array(a), array(b), path)
        else:
            assert difference(a, b) <= most, path


def run(model, inputs):
    """Eager outputs of a model in inference mode."""
    return keras.tree.map_structure(array, model(inputs, training=False))


def run_once(model, inputs):
    """As `run`, of a model of its own shapes.

    JAX would compile each operation, which takes five times as long as all.
    """
    if keras.config.backend() != "jax":
        return run(model, inputs)
    import jax

    def outputs(trainable, others, inputs):
        made, _ = model.stateless_call(trainable, others, inputs)
        return made

    variables = model.trainable_variables, model.non_trainable_variables
    values = ([v.value for v in some] for some in variables)
    return keras.tree.map_structure(array, jax.jit(outputs)(*values, inputs))


# Of tests of many steps, which on JAX take longer op by op.
MANY_STEPS = keras.config.backend() == "jax"


def fast(model, optimizer=None, jit_compile=False):
    """Compiled without XLA, which takes longer than most tests."""
    optimizer = optimizer or keras.optimizers.AdamW(1e-3)
    model.compile(optimizer, jit_compile=jit_compile)
    # Otherwise TensorFlow traces the first step twice, once to create these.
    model.optimizer.build(model.trainable_variables)
    return model


def eager(model, optimizer=None):
    """Compiled for a few steps, which take less time than tracing one."""
    model.compile(optimizer or keras.optimizers.AdamW(1e-3), run_eagerly=True)
    return model


def moved(model, change):
    """Paths of the weights that a function changes."""
    before = {w.path: array(w) for w in model.weights}
    change()
    return {w.path for w in model.weights if difference(w, before[w.path])}


def classifier_head(x, weights):
    """`ClassifierHead` in NumPy, for kernel, bias, gamma, beta, ..."""
    w1, b1, gamma, beta, w2, b2 = (
        np.asarray(array(w), "float64") for w in weights
    )
    x = np.asarray(array(x), "float64") @ w1 + b1
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * gamma + beta
    x = x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    return x @ w2 + b2


FASTEST = pytest.mark.skipif(
    keras.config.backend() != "torch",
    reason="the same code with every backend: run with KERAS_BACKEND=torch",
)


def slow_on(*backends):
    """A mark of tests that only `-m slow` runs on some backends.

    They take long there; on the other backends they run each time.
    """
    if keras.config.backend() in backends:
        return pytest.mark.slow
    return pytest.mark.skipif(False, reason="it is not long here")


# Of code that hardly knows its backend: it compiles and traces for nothing.
LONG_ELSEWHERE = slow_on("tensorflow", "jax")


def some_everywhere(cases, *everywhere):
    """Parameters of a test; all of them run on the fastest backend alone."""
    return [
        case if case in everywhere else pytest.param(case, marks=FASTEST)
        for case in cases
    ]


def long_but(cases, *always):
    """Parameters of a test; `-m slow` runs the others."""
    return [
        case if case in always else pytest.param(case, marks=pytest.mark.slow)
        for case in cases
    ]


# Code that never meets Keras' backend is the same on each.
ONE_BACKEND = pytest.mark.skipif(
    keras.config.backend() != "tensorflow",
    reason="NumPy and Pillow alone: run with KERAS_BACKEND=tensorflow",
)
