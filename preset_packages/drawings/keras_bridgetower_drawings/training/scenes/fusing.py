"""Train the fusion to say which of two captions is true of which scene.

A step has groups of a scene, its near miss, another scene, and a caption of the
first two: six pairs, two of them true. Scenes are sorted by the share of facts
that hold. Beside the match, each noun says where its thing is, how large
and of which color, and a layer's attention is taught to look there.
"""

import keras
import numpy as np
from keras import ops

from keras_bridgetower.models import heads
from keras_bridgetower.models.attention import capture_attention
from keras_bridgetower_drawings.training.emoji import model
from keras_bridgetower_drawings.training.scenes import captions
from keras_bridgetower_drawings.training.scenes import reading
from keras_bridgetower_drawings.training.scenes import seeing
from keras_bridgetower_drawings.training.scenes.scenes import SORTS
from keras_bridgetower_drawings.training.scenes.scenes import World

GROUPS = 16
# Texts and pictures of the pairs of a group; picture 2 is of the next group.
PAIRS = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2))
SHARP = 3.0  # Times a grade from 0 to 3: the logit that lists learn.
# The layer where nouns find their things, and how many of its heads.
LOOKS, HEADS = 1, 2
SEEN = 3 + len(seeing.PAINTS)  # x, y, size and color of a thing.


class Matching(model.Rated):
    """The fusion and the matching head.

    Args:
        task: a `BridgeTowerRetrieval` with
            `matching="word_similarity_and_fused"`.
        sees: bool, whether the image tower and the vectors are trained.
    """

    def __init__(self, task, sees=False):
        nouns = (f"{sort} by nouns" for sort in SORTS)
        super().__init__((*SORTS, *nouns, "looks", "near"))
        self.backbone, self.sees = task.backbone, sees
        self.itm, self.itc = task.heads["itm"], task.heads["itc"]
        self.backbone.image_tower.trainable = sees
        # Trained by matches alone, it forgets what its nouns say.
        self.backbone.text_tower.trainable = False
        self.itc.trainable = sees
        width = self.backbone.fusion.hidden_dim
        self.seen = keras.layers.Dense(SEEN)
        self.seen.build((None, None, width))
        # Whether the caption is right about each noun.
        self.holds = keras.layers.Dense(1)
        self.holds.build((None, None, width))

    def call(self, x, training=None):
        images = self.states(x["images"])
        texts = self.backbone.text_tower(
            {k: x[k] for k in ("token_ids", "padding_mask")}
        )
        vectors = self.itc(
            heads.contrastive_features(
                self.backbone.fusion, self.itc.ways, texts, images
            )
        )
        of_text, of_image = x["text_rows"], x["image_rows"]
        fusion = self.backbone.fusion
        text = [ops.take(t, of_text, 0) for t in fusion.project_text(texts)]
        image = [ops.take(i, of_image, 0) for i in fusion.project_image(images)]
        mask = ops.take(x["padding_mask"], of_text, 0)
        places = ops.take(x["places"], of_text, 0)
        pooled, middle, maps = join(fusion, text, image, mask)
        near = ops.take(vectors["text"], of_text, 0)
        near = ops.sum(near * ops.take(vectors["image"], of_image, 0), -1)
        read = {"pooled": pooled, "similarity": near, "padding_mask": mask}
        read |= {"words": text[-1], "patches": image[-1]}
        logits = self.itm(read)
        score = logits[:, 1] - logits[:, 0]
        nouns = ops.take_along_axis(middle, places[..., None], axis=1)
        looks = ops.take_along_axis(maps, places[..., None], axis=1)
        every = ops.matmul(vectors["text"], ops.transpose(vectors["image"]))
        holds = ops.sum(self.holds(nouns), (1, 2))
        return score, holds, every, self.seen(nouns), looks

    def states(self, images):
        """Return the states of pictures."""
        return self.backbone.image_tower(images)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        score, holds, every, seen, looks = y_pred
        sure = 0.0
        for name, scores in (("", score), (" by nouns", holds)):
            groups = ops.reshape(scores, (-1, 2, 3))
            wanted = ops.softmax(SHARP * y["grades"])
            listed = ops.sum(wanted * ops.log_softmax(groups), -1)
            told = ops.log_softmax(groups[:, :, :2], axis=1)
            sure += ops.mean(listed) + ops.mean(ops.diagonal(told, 0, 1, 2))
            right = ops.cast(groups[:, 0, 0] > groups[:, 1, 0], "float32")
            right += ops.cast(groups[:, 1, 1] > groups[:, 0, 1], "float32")
            for number, sort in enumerate(SORTS):
                of_sort = ops.cast(y["sort"] == number, "float32")
                self.rates[sort + name].update_state(right / 2, of_sort)
        true = ops.cast(ops.reshape(y["true"], (-1,)), "float32")
        entropy = ops.binary_crossentropy(true, score, from_logits=True)
        there = y["there"]  # 1 where a noun has its thing, `(pairs, nouns)`.
        found = ops.sum(looks * y["inside"], -1)
        self.rates["looks"].update_state(found)
        place = ops.sum(ops.abs(seen[..., :3] - y["where"]), -1)
        paint = keras.losses.sparse_categorical_crossentropy(
            y["paint"], seen[..., 3:], from_logits=True
        )
        self.rates["near"].update_state(place, there)
        taught = ops.sum((3 * place + 0.5 * paint) * there) / ops.sum(there)
        taught -= ops.mean(ops.log(found + 1e-4))
        loss = -sure + 0.5 * ops.mean(entropy) + 0.5 * taught
        if self.sees:
            # The vectors learn which scene a caption is of.
            for axis in (0, 1):
                near = ops.log_softmax(heads.SCALE * every, axis=axis)
                loss -= 0.25 * ops.mean(ops.diagonal(near))
        return loss


def join(fusion, text_states, image_states, mask):
    """Run the fusion, and keep what its middle layer says and looks at.

    Returns:
        `(pooled, middle, maps)`: texts after the layer `LOOKS`, and the mean
        attention of the first heads there, `(pairs, tokens, places)`.
    """
    text = image = None
    for number, step in enumerate(fusion.steps):
        last = number == fusion.num_layers - 1
        before = {"text": text, "image": image}
        text = fusion.layer_input(
            "text", number, before, text_states, mask, None
        )
        image = fusion.layer_input(
            "image", number, before, image_states, None, None
        )
        queries = (text[:, :1], image[:, :1]) if last else (text, image)
        if number == LOOKS:
            with capture_attention() as found:
                text, image = step(*queries, text, image, mask)
            name = step.text_layer.cross_attention.name
            middle, maps = text, ops.mean(found[name][:, :HEADS], 1)
        else:
            text, image = step(*queries, text, image, mask)
    both = fusion.text_pooler(text[:, 0]), fusion.image_pooler(image[:, 0])
    return ops.concatenate(both, -1), middle, maps


def truth(told, drawn, grid):
    """Return what is true of each pair of captions and scenes.

    Args:
        told: list of `Caption`.
        drawn: list of `Scene`, as many.
        grid: int, how many places of the image tower are in a row.
    """
    y, x = ((np.mgrid[:grid, :grid] + 0.5) / grid).reshape(2, -1)
    shape = len(told), reading.NOUNS
    there, paint = np.zeros(shape, "float32"), np.zeros(shape, "int32")
    where = np.zeros((*shape, 3), "float32")
    # A noun without its thing looks at the class token.
    inside = np.zeros((*shape, 1 + grid**2), "float32")
    inside[..., 0] = 1.0
    for i, (caption, scene) in enumerate(zip(told, drawn, strict=True)):
        by_name = {one.name: one for one in scene.things}
        for j, name in enumerate(caption.names):
            if name in by_name:
                one = by_name[name]
                there[i, j] = 1.0
                paint[i, j] = seeing.PAINTS.index(one.color)
                where[i, j] = one.x, one.y, one.size
                far = np.maximum(abs(x - one.x), abs(y - one.y))
                inside[i, j, 0] = 0.0
                inside[i, j, 1:] = far < 0.5 * one.size
    return {"there": there, "paint": paint, "where": where, "inside": inside}


def batches(things, converter, tokenizer, side, steps, seed, sorts=SORTS):
    """Return `Batches` of groups of new scenes, as many of each sort."""
    scenes, grid = World(things, "training"), side // seeing.PATCH

    def make(rows, rng):
        drawn, told, kinds = [], [], []
        for number in range(len(rows)):
            sort = sorts[number % len(sorts)]
            scene = scenes.scene(rng, sort)
            other = scenes.near_miss(scene, sort, rng)
            drawn += [scene, other]
            told += captions.captions(scene, sort, "training", rng, other)
            kinds.append(SORTS.index(sort))
        pictures = np.stack(
            [scenes.draw(s, side, scenes.drawings(s, rng)) for s in drawn]
        )
        images = np.asarray(converter(pictures), "float32")
        return grouped(drawn, told, kinds, images, tokenizer, grid)

    return model.Batches(make, steps * GROUPS, GROUPS, seed)


def grouped(drawn, told, kinds, images, tokenizer, grid):
    """Return inputs and truth of groups.

    Args:
        drawn: list of `Scene`: of each group a scene and its near miss.
        told: list of `Caption`: what is true of each of them.
        kinds: list of int, the number of each group's sort.
        images: what the image tower, or `Matching.states`, reads of `drawn`.
        tokenizer: of the text tower.
        grid: int, as of `truth`.
    """
    x = reading.features(tokenizer, told, tokenizer.sequence_length)
    pairs = [
        (2 * i + t, (2 * i + p) % len(drawn))
        for i in range(len(kinds))
        for t, p in PAIRS
    ]
    text_rows, image_rows = np.array(pairs, "int32").T
    x |= {"images": images, "text_rows": text_rows, "image_rows": image_rows}
    pairs = [told[t] for t in text_rows], [drawn[p] for p in image_rows]
    y = truth(*pairs, grid)
    y["true"] = np.array(
        [t.facts <= p.facts for t, p in zip(*pairs, strict=True)]
    )
    grades = [t.grade(p) for t, p in zip(*pairs, strict=True)]
    y["grades"] = np.array(grades, "float32").reshape(-1, 2, 3)
    y["sort"] = np.array(kinds, "int32")
    return x, y
