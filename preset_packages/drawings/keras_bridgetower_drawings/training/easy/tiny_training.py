"""Parts that the scripts for the small presets share."""

import json
import operator
import pathlib

import keras
import keras_hub
import numpy as np
import tensorflow as tf
import tokenizers

import keras_bridgetower as kbt
from keras_bridgetower.presets import manifest
from keras_bridgetower.presets import weights_file
from keras_bridgetower_drawings.training.easy.scenes import ATTRIBUTES
from keras_bridgetower_drawings.training.easy.scenes import moved

SIDE, WIDTH, HEADS = 64, 64, 4
SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def learn_vocabulary(texts, size=512):
    """Learn a byte-level BPE vocabulary: all bytes, and the words of texts."""
    engine = tokenizers.Tokenizer(tokenizers.models.BPE())
    engine.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=False
    )
    engine.train_from_iterator(
        texts,
        tokenizers.trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=SPECIAL_TOKENS,
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    learned = json.loads(engine.to_str())["model"]
    return learned["vocab"], list(map(" ".join, learned["merges"]))


def build_backbone(
    vocabulary_size,
    image_layers,
    text_layers,
    layers,
    width=WIDTH,
    fusion_width=WIDTH,
    side=SIDE,
):
    """Return an untrained small backbone: 4 heads, patches of 8 pixels."""
    return kbt.BridgeTowerBackbone(
        image_encoder=keras_hub.models.CLIPVisionEncoder(
            patch_size=8,
            hidden_dim=width,
            num_layers=image_layers,
            num_heads=HEADS,
            intermediate_dim=4 * width,
            image_shape=(side, side, 3),
        ),
        text_encoder=keras_hub.models.RobertaBackbone(
            vocabulary_size=vocabulary_size,
            num_layers=text_layers,
            num_heads=HEADS,
            hidden_dim=width,
            intermediate_dim=4 * width,
            max_sequence_length=32,
            dropout=0.0,
        ),
        hidden_dim=fusion_width,
        num_heads=HEADS,
        num_layers=layers,
        dropout=0.0,
    )


def train_image_tower(task, scenes, epochs, settings):
    """Train the image tower on attributes of moved training pictures."""
    tower = task.backbone.image_tower
    converter = task.preprocessor.image_converter

    def rows(scenes, seed):
        labels = dict(zip(ATTRIBUTES, scenes.values.T, strict=True))
        return scenes.data.images, labels

    data, steps = stream(scenes, rows, epochs, settings.tower_batch_size, 0)
    first_token = tower(tower.input)[-1][:, 0]
    outputs = {
        name: keras.layers.Dense(len(words), name=name)(first_token)
        for name, words in ATTRIBUTES.items()
    }
    model = keras.Model(tower.input, outputs)
    entropy = keras.losses.SparseCategoricalCrossentropy
    compile_for(
        model,
        epochs * steps,
        settings.learning_rate,
        loss={name: entropy(from_logits=True) for name in ATTRIBUTES},
        metrics=dict.fromkeys(ATTRIBUTES, "accuracy"),
    )
    history = model.fit(
        data.map(lambda x, y: (converter(x), y), num_parallel_calls=2),
        epochs=epochs,
        steps_per_epoch=steps,
        shuffle=False,  # The stream has its own order.
        verbose=2,
    ).history
    found = {name: history[f"{name}_accuracy"][-1] for name in ATTRIBUTES}
    return {name: round(float(share), 4) for name, share in found.items()}


def stream(scenes, rows, epochs, batch_size, seed):
    """Return raw batches of epochs, each of moved pictures and new texts."""

    def epoch(number):
        of_epoch = 1000 * seed + number
        return rows(moved(scenes, of_epoch), of_epoch)

    def generate():
        rng = np.random.default_rng(seed)
        for number in range(epochs):
            made = epoch(number)
            order = rng.permutation(len(keras.tree.flatten(made)[0]))
            for first in range(0, len(order) - batch_size + 1, batch_size):
                chosen = order[first : first + batch_size]
                take = operator.itemgetter(chosen)
                yield keras.tree.map_structure(take, made)

    def spec(values):
        text = values.dtype.kind in "UO"
        shape = (batch_size, *values.shape[1:])
        return tf.TensorSpec(shape, tf.string if text else values.dtype)

    one = epoch(0)
    dataset = tf.data.Dataset.from_generator(
        generate, output_signature=keras.tree.map_structure(spec, one)
    )
    return dataset, len(keras.tree.flatten(one)[0]) // batch_size


def compile_for(model, steps, learning_rate, **kwargs):
    """Compile with AdamW: warm-up over a tenth of the steps, cosine to zero.

    If `learning_rate` is a schedule, it is used without a warm-up.
    """
    schedules = keras.optimizers.schedules
    if not isinstance(learning_rate, schedules.LearningRateSchedule):
        learning_rate = schedules.CosineDecay(
            0.0,
            decay_steps=steps - steps // 10,
            warmup_target=learning_rate,
            warmup_steps=steps // 10,
        )
    model.compile(
        keras.optimizers.AdamW(
            learning_rate, weight_decay=0.01, beta_2=0.98, global_clipnorm=1.0
        ),
        **kwargs,
    )


def page(script, name, model, record, **values):
    """Fill in the page beside a script, with the scores and blind ones."""
    blind = record["blind_test_scores"]
    rows = "\n".join(
        f"| {kind} | {score:.2f} | {blind.get(kind, '')} |"
        for kind, score in record["test_scores"].items()
    )
    values |= {"parameters": f"{model.count_params():,}", "rows": rows}
    text = pathlib.Path(script).with_suffix(".md").read_text()
    return text.format(**record | values | {"name": name})


def save(task, folder, record, page):
    folder = pathlib.Path(folder)
    task.save_to_preset(folder)
    (folder / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    (folder / "README.md").write_text(page)
    pack(folder)


def pack(folder):
    """Rewrite a preset's weight files in HDF5's newer, denser layout."""
    for path in folder.glob("*.weights.h5"):
        dense = path.with_suffix(".dense")
        weights_file.rewrite(path, dense)
        dense.replace(path)
    manifest.write(folder)
