"""Train the towers: English, captions, and the places of drawings.

The text tower first learns English from MiniLM, without pictures: MiniLM's
vectors of WordNet's sentences and captions, and masked tokens. Then half of
each batch are captions, which must find their emoji among all; the other half
are sentences of WordNet, which must keep MiniLM's vector and its similarities
to emoji. The image tower learns to put each drawing where the text tower puts
its captions. A classifier of all emoji, which is dropped afterwards, separates
those that the text tower puts in nearly the same place.
"""

import keras
import numpy as np
from keras import ops

from keras_bridgetower.models.heads import contrastive_features
from keras_bridgetower_drawings.training.emoji import model

ENGLISH_BATCH, MASKS = 256, 3


def know_words(task, space):
    tokenizer = task.preprocessor.tokenizer
    size = tokenizer.vocabulary_size()
    words = [tokenizer.id_to_token(i) for i in range(size)]
    words = [word.replace("\u0120", "") or " " for word in words]
    weights = task.backbone.text_tower.weights
    (table,) = (w for w in weights if tuple(w.shape) == (size, model.SPACE))
    table.assign(0.7 * space.of(words))


def learn_english(task, texts, vectors, epochs, folder, seed):
    # MiniLM reads no capitals, our tokenizer does.
    texts = [*texts, *(text.capitalize() for text in texts[::6])]
    vectors = np.concatenate([vectors, vectors[::6]])
    backbone, tokenizer = task.backbone, task.preprocessor.tokenizer
    inputs = {
        name: keras.Input((None,), dtype="int32", name=name)
        for name in ("token_ids", "padding_mask", "positions")
    }
    states = backbone.text_tower(
        {name: inputs[name] for name in ("token_ids", "padding_mask")}
    )[-1]
    vector = task.heads["itc"]({"text": states[:, 0]})["text"]
    masked = ops.take_along_axis(states, inputs["positions"][..., None], 1)
    tokens = keras.layers.Dense(tokenizer.vocabulary_size(), name="tokens")
    student = keras.Model(
        inputs,
        {"vector": keras.layers.Identity()(vector), "tokens": tokens(masked)},
    )
    encoded = tokenizer(texts)
    lengths = (encoded != tokenizer.pad_token_id).sum(-1)
    data = model.Batches(
        _masked_batches(tokenizer, encoded, lengths, vectors),
        len(texts),
        ENGLISH_BATCH,
        seed,
        _rows_of_like_length(lengths),
    )
    return model.train(
        *(student, data, epochs, 2e-3, folder),
        loss={"vector": like_the_teacher, "tokens": _named_tokens},
        loss_weights={"vector": 1.0, "tokens": 0.1},
    )


def like_the_teacher(true, given):
    """Compute the distance to the teacher, and that of the similarities."""
    cosine = 1.0 - ops.sum(true * given, -1)
    wanted = ops.softmax(20.0 * ops.matmul(true, ops.transpose(true)))
    logs = ops.log_softmax(20.0 * ops.matmul(given, ops.transpose(given)))
    likeness = ops.sum(wanted * (ops.log(wanted + 1e-9) - logs), -1)
    return 2.0 * cosine + likeness


def _named_tokens(true, given):
    """Compute the cross-entropy of masked tokens; -1 marks empty places."""
    there = ops.cast(true >= 0, given.dtype)
    losses = ops.sparse_categorical_crossentropy(
        ops.maximum(true, 0), given, from_logits=True
    )
    return ops.sum(losses * there) / ops.maximum(ops.sum(there), 1.0)


def _masked_batches(tokenizer, encoded, lengths, vectors):
    """Make batches: a third of the texts have a fifth of tokens masked."""
    pad, mask = tokenizer.pad_token_id, tokenizer.mask_token_id

    def batch(rows, rng):
        ids = encoded[rows, : lengths[rows].max()].copy()
        positions = np.zeros((len(rows), MASKS), "int32")
        wanted = np.full((len(rows), MASKS), -1, "int32")
        for i in np.flatnonzero(rng.random(len(rows)) < 0.33):
            words = lengths[rows[i]] - 2
            count = min(MASKS, max(1, words // 5))
            places = 1 + rng.permutation(words)[:count]
            positions[i, : len(places)] = places
            wanted[i, : len(places)] = ids[i, places]
            if words > 2:
                ids[i, places] = mask
        x = {
            "token_ids": ids,
            "padding_mask": (ids != pad).astype("int32"),
            "positions": positions,
        }
        return x, {"vector": vectors[rows], "tokens": wanted}

    return batch


def _rows_of_like_length(lengths):
    """Order texts so that those of a batch have similar lengths."""

    def order(rng):
        rows = np.argsort(lengths + 2.0 * rng.random(len(lengths)))
        batches = rows[: len(rows) // ENGLISH_BATCH * ENGLISH_BATCH].reshape(
            -1, ENGLISH_BATCH
        )
        return rng.permutation(batches).ravel()

    return order


CAPTIONS, SENTENCES = 128, 128
ENGLISH = 5.0  # Weight of the distance to MiniLM's vector.
SHARPNESS = 25.0  # Of MiniLM's similarities to emoji.


def learn_captions(task, run, space, places, same, epochs, folder):
    inputs = {
        name: keras.Input((None,), dtype="int32", name=name)
        for name in ("token_ids", "padding_mask")
    }
    states = task.backbone.text_tower(inputs)[-1]
    reader = keras.Model(
        inputs, task.heads["itc"]({"text": states[:, 0]})["text"]
    )
    numbers = list(space.captions)
    reminders = Reminders(run, space)
    tokenizer = task.preprocessor.tokenizer

    def batch(rows, rng):
        said = [run.caption(numbers[row], rng) for row in rows]
        sentences, vectors, shares = reminders.draw(SENTENCES, rng)
        ids = tokenizer([*said, *sentences])
        wanted = np.zeros((len(ids), model.SPACE + len(places)), "float32")
        wanted[len(said) :, : model.SPACE] = vectors
        wanted[: len(said), model.SPACE :] = same[rows]
        wanted[len(said) :, model.SPACE :] = shares @ same
        mask = (ids != tokenizer.pad_token_id).astype("int32")
        return {"token_ids": ids, "padding_mask": mask}, wanted

    data = model.Batches(batch, len(numbers), CAPTIONS, run.seed)
    return model.train(reader, data, epochs, 1e-3, folder, loss=find_it(places))


class Reminders:
    """Sentences without held-out words, and MiniLM's similar emoji."""

    def __init__(self, run, space):
        self._space, self._teacher = space, run.teacher
        said = [run.teacher.of(texts) for texts in space.captions.values()]
        self._emoji = np.stack([v.astype("float32").mean(0) for v in said])
        self._emoji /= np.linalg.norm(self._emoji, axis=1, keepdims=True)
        self._sentences = np.array(
            [text for text in space.texts if not run.splits.keeps_back(text)]
        )

    def draw(self, count, rng):
        rows = rng.integers(len(self._sentences), size=count)
        sentences = self._sentences[rows].tolist()
        near = self._teacher.of(sentences).astype("float32") @ self._emoji.T
        shares = np.exp(SHARPNESS * (near - near.max(1, keepdims=True)))
        shares /= shares.sum(1, keepdims=True)
        return sentences, self._space.of(sentences), shares


def find_it(places):
    """Return a loss of texts: find the right places, and do not move far."""

    def loss(true, given):
        stay, wanted = true[:, : model.SPACE], true[:, model.SPACE :]
        found = ops.log_softmax(SCALE * ops.matmul(given, places.T))
        moved = ops.sum(stay * stay, -1) - ops.sum(stay * given, -1)
        return ENGLISH * moved - ops.sum(wanted * found, -1)

    return loss


DRAWINGS_BATCH = 64
SCALE = 30.0  # Of the softmax over all emoji.
# Weight of the distance of a drawing to its place: one that is far from all
# places is behind other drawings for its own text.
NEAR = 5.0


def learn_places(task, drawings, space, read, epochs, learning_rate, folder):
    """Train the image side of a contrastive task, and return the history."""
    numbers, places, same = places_of(space, drawings.run, read)
    convert = task.preprocessor.image_converter
    row_of = {number: row for row, number in enumerate(numbers)}

    def batch(rows, rng):
        shown = np.asarray(convert(drawings.pictures(rows, rng)))
        wanted = np.array([row_of[drawings.rows[row][0]] for row in rows])
        return shown, {"place": wanted, "name": wanted}

    run = drawings.run
    data = model.Batches(batch, len(drawings.rows), DRAWINGS_BATCH, run.seed)
    return model.train(
        *(_looker(task, len(numbers)), data, epochs, learning_rate, folder),
        loss={
            "place": find_its_place(places, same),
            "name": find_its_name(same),
        },
        loss_weights={"place": 1.0, "name": 0.5},
    )


def _looker(task, count):
    """Return a model from pictures to places and a score for each emoji."""
    pictures = task.input["images"]
    states = task.backbone.image_tower(pictures)
    features = contrastive_features(
        task.backbone.fusion, task.ways, image=states
    )
    place = task.heads["itc"](features)["image"]
    seen = keras.layers.LayerNormalization()(states[-1][:, 0])
    scores = keras.layers.Dense(count)(seen)
    return keras.Model(pictures, {"place": place, "name": scores})


def places_of(space, run, read):
    """Return the places of the training emoji, and which look the same."""
    numbers = list(space.captions)
    every = read([t for n in numbers for t in space.captions[n]])
    places = np.stack([part.mean(0) for part in np.split(every, len(numbers))])
    places /= np.linalg.norm(places, axis=1, keepdims=True)
    looks = run.splits.looks[numbers]
    return numbers, places, alike(looks, looks)


def alike(looks, others):
    """Return for each look the shares of equal looks, float32."""
    same = (looks[:, None] == others[None, :]).astype("float32")
    return same / same.sum(-1, keepdims=True)


def find_its_place(places, same):
    """Return a loss: be near the own place, and nearest to it."""
    named = find_its_name(same)

    def loss(true, given):
        near = given @ places.T
        own = ops.take_along_axis(near, ops.cast(true, "int32")[:, None], 1)
        return named(true, SCALE * near) + NEAR * (1.0 - own[:, 0])

    return loss


def find_its_name(same):
    """Return a cross-entropy for which emoji that look alike are equal."""

    def loss(true, scores):
        wanted = ops.take(same, ops.cast(true, "int32"), axis=0)
        return -ops.sum(wanted * ops.log_softmax(scores), -1)

    return loss
