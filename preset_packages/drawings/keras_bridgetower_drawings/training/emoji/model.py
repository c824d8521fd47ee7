"""The model, its vocabulary, and how a stage trains and is saved."""

import json
import pathlib
import time

import keras
import numpy as np

import keras_bridgetower as kbt
from keras_bridgetower.backend import layer_records
from keras_bridgetower.files import read_json
from keras_bridgetower.models.head_table import HeadSet
from keras_bridgetower.presets import registry
from keras_bridgetower.presets import weights_file
from keras_bridgetower_drawings.training.easy.tiny_training import (
    build_backbone,
)
from keras_bridgetower_drawings.training.easy.tiny_training import compile_for
from keras_bridgetower_drawings.training.easy.tiny_training import (
    learn_vocabulary,
)
from keras_bridgetower_drawings.training.easy.tiny_training import pack
from keras_bridgetower_drawings.training.emoji.world import SIDE

WIDTH, FUSION = 128, 96
VOCABULARY = 6000
TOKENS = 24
# Width of the space of texts and pictures.
SPACE = 128


def new_task(tokenizer, side=SIDE):
    backbone = build_backbone(
        tokenizer.vocabulary_size(),
        image_layers=4,
        text_layers=4,
        layers=2,
        width=WIDTH,
        fusion_width=FUSION,
        side=side,
    )
    return kbt.BridgeTowerContrastive(
        backbone,
        kbt.BridgeTowerContrastivePreprocessor(
            tokenizer, kbt.BridgeTowerImageConverter(side)
        ),
        projection_dim=SPACE,
    )


def new_tokenizer(texts):
    """Learn a byte-level BPE tokenizer from texts."""
    vocabulary, merges = learn_vocabulary(texts, VOCABULARY)
    return kbt.BridgeTowerTokenizer(vocabulary, merges, TOKENS)


class Batches(keras.utils.PyDataset):
    """Batches that depend on seed, epoch and number alone, so runs resume.

    `make(rows, rng)` returns a batch, `order(rng)` the rows of an epoch, by
    default all in random order.
    """

    def __init__(self, make, count, batch_size, seed, order=None):
        super().__init__(workers=1, max_queue_size=8)
        self.make, self.count, self.batch_size = make, count, batch_size
        self.seed = seed
        self.order = order or (lambda rng: rng.permutation(count))
        self.begin(0)

    def begin(self, epoch):
        self.epoch = epoch
        self.rows = self.order(np.random.default_rng((self.seed, epoch)))

    def __len__(self):
        return self.count // self.batch_size

    def __getitem__(self, number):
        first = number * self.batch_size
        rng = np.random.default_rng((self.seed, self.epoch, number))
        return self.make(self.rows[first : first + self.batch_size], rng)


class Rated(keras.Model):
    """A model whose `compute_loss` updates the means `rates`, by name."""

    def __init__(self, names):
        super().__init__()
        self.rates = {name: keras.metrics.Mean(name=name) for name in names}
        self.built = True

    @property
    def metrics(self):
        return [*super().metrics, *self.rates.values()]

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return {metric.name: metric.result() for metric in self.metrics}


def train(model, data, epochs, learning_rate, folder, callbacks=(), **compiled):
    """Train, or resume an interrupted run in the same folder.

    Returns the values of each metric, and the seconds, by epoch.
    """
    compile_for(model, epochs * len(data), learning_rate, **compiled)
    history = pathlib.Path(folder) / "history.jsonl"
    history.parent.mkdir(parents=True, exist_ok=True)
    started = {}

    def begin(epoch, logs=None):
        started[epoch] = time.time()
        data.begin(epoch)

    def end(epoch, logs):
        numbers = {name: round(float(v), 4) for name, v in logs.items()}
        numbers["seconds"] = round(time.time() - started.pop(epoch), 1)
        with history.open("a") as file:
            file.write(json.dumps({"epoch": epoch} | numbers) + "\n")

    model.fit(
        data,
        epochs=epochs,
        verbose=2,
        callbacks=[
            keras.callbacks.BackupAndRestore(pathlib.Path(folder) / "backup"),
            keras.callbacks.LambdaCallback(
                on_epoch_begin=begin, on_epoch_end=end
            ),
            *callbacks,
        ],
    )
    rows = [json.loads(line) for line in history.read_text().splitlines()]
    by_epoch = {row.pop("epoch"): row for row in rows}
    names = by_epoch[0]
    return {n: [by_epoch[e][n] for e in sorted(by_epoch)] for n in names}


def run_stages(stages, run):
    """Run the stages whose preset is not there yet, in order.

    A stage is a function of the run and a folder that returns tasks to save and
    the history.
    """
    for name, stage in stages.items():
        target = run.folder / name
        if target.exists():
            continue
        keras.utils.set_random_seed(run.seed)
        started = time.time()
        task, history = stage(run, run.folder / f"{name}_run")
        task.save_to_preset(target)
        # If the run was resumed, count the epochs before as well.
        seconds = max(time.time() - started, sum(history["seconds"]))
        record = {
            "backend": keras.config.backend(),
            "seed": run.seed,
            "seconds": round(seconds),
            "training": history,
        }
        target.with_suffix(".json").write_text(json.dumps(record, indent=2))
        print(f"{name}: {record['seconds']} seconds", flush=True)


def hide_tokens(ids, free, share, most, rng):
    """Draw tokens to hide: a share of the free ones, from one to `most`.

    Returns the mask `(texts, tokens)`, and `(texts, most)` the positions of
    hidden tokens and their ids. Unused slots have position 0 and id -100.
    """
    # The token with the lowest draw is hidden in any case.
    draws = np.where(free, rng.random(ids.shape), 2.0)
    lowest = draws.min(1, keepdims=True)
    hidden = free & ((draws < share) | (draws == lowest))
    hidden &= hidden.cumsum(1) <= most
    places = np.zeros((len(ids), most), "int32")
    tokens = np.full((len(ids), most), -100, "int32")
    row, place = np.nonzero(hidden)
    slot = hidden.cumsum(1)[row, place] - 1
    places[row, slot], tokens[row, slot] = place, ids[row, place]
    return hidden, places, tokens


class Together:
    """Tasks that share a backbone; a preset opens as the first by itself."""

    def __init__(self, *tasks):
        self.tasks = tasks

    def save_to_preset(self, folder):
        """Save one preset that opens as each of the tasks."""
        first = self.tasks[0]
        first.save_to_preset(folder)
        heads, values, quantized = {}, {}, {}
        for task in self.tasks:
            heads |= {name: task.heads[name] for name in task.heads}
            values |= task.head_values
            quantized |= task.get_config().get(layer_records.QUANTIZED, {})
        HeadSet(heads).save(folder / weights_file.TASK_WEIGHTS)
        registry.write_json(folder, registry.HEADS, values)
        if quantized:
            told = read_json(folder / weights_file.TASK)
            told["config"][layer_records.QUANTIZED] = quantized
            registry.write_json(folder, weights_file.TASK, told)
        pack(folder)
