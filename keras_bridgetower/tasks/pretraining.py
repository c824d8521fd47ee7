"""Pre-training by several objectives at once, and masked language modeling."""

import keras
import numpy as np
from keras import ops

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.checks import check_at_most
from keras_bridgetower.metrics import keras_metrics
from keras_bridgetower.models import head_table
from keras_bridgetower.objectives import losses
from keras_bridgetower.objectives import pair_objectives
from keras_bridgetower.objectives.pair_objectives import pair_outputs
from keras_bridgetower.preprocessing import pretraining as preprocessing
from keras_bridgetower.preprocessing import verb_inputs
from keras_bridgetower.presets import verbs
from keras_bridgetower.tasks import classification
from keras_bridgetower.tasks.task import BridgeTowerTask
from keras_bridgetower.tasks.task import check_made_for


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerPretraining(BridgeTowerTask):
    """Masked language, image-text matching and contrast, in one `fit`.

    Each image passes its tower once for all objectives, and negatives are
    other rows of the batch. The preset of the trained model opens in every
    task: heads are found by name.

    Args:
        backbone: a `BridgeTowerBackbone`.
        preprocessor: a `BridgeTowerPretrainingPreprocessor`, or None.
        objectives: tuple of some of `"mlm"`, `"itm"`, `"itc"`.
        negatives: `"random_negatives"` or `"hard_negatives"`, those of the
            preprocessor.
        projection_dim: int, width of the contrastive space.
        ways: `"two_way"` or `"three_way"`, see `ContrastiveLoss`.
        head_epsilon: float, epsilon of the masked language head's layer norm.
        matching: as `BridgeTowerRetrieval`; those with a similarity need the
            objective `"itc"`.
        **kwargs: `name`, `compile`.

    Call arguments:
        inputs: dict of the features that the preprocessor makes.

    Returns:
        dict of the objectives: `"mlm"` float32 `(batch, M, vocabulary)`,
        `"itm"` float32 `(batch, 2)`, or `(batch, 3, 2)` with hard negatives,
        and `"itc"`, a dict of embeddings `(batch, projection_dim)`.

    Raises:
        ValueError: objectives that do not fit each other or the
            preprocessor.

    Example:

    ```python
    pretraining = BridgeTowerPretraining.from_preset(
        "bridgetower_tiny_easy_pretrain", objectives=("mlm", "itm"))
    pretraining.compile(keras.optimizers.AdamW(1e-4),
                        loss_weights={"mlm": 1.0, "itm": 0.5})
    images = np.random.randint(0, 256, (4, 64, 64, 3), dtype="uint8")
    x = {"images": images, "text": ["a dot", "a line", "a star", "a ring"]}
    pretraining.fit(x, batch_size=4)
    ```

    Source: BridgeTower (AAAI 2023); ALBEF for the hard negatives.
    """

    preprocessor_cls = preprocessing.BridgeTowerPretrainingPreprocessor
    label_arguments = ("objectives", "negatives")
    task_name = "pretraining"
    recipe_arguments = {"objectives": "objective"}
    config_arguments = (
        "objectives",
        "negatives",
        "projection_dim",
        "ways",
        "head_epsilon",
        "matching",
    )

    def __init__(
        self,
        backbone,
        preprocessor=None,
        objectives=preprocessing.OBJECTIVES,
        negatives="random_negatives",
        projection_dim=256,
        ways="two_way",
        head_epsilon=1e-5,
        matching="fused",
        **kwargs,
    ):
        self.matching = matching
        self.objectives = preprocessing.checked_objectives(
            objectives, negatives
        )
        if "mlm" in self.objectives:
            self.token_inputs = ("masked_token_ids", "mask_positions")
        self.negatives = negatives
        check_made_for(
            preprocessor, objectives=self.objectives, negatives=negatives
        )
        self.pair_objective = pair_objectives.make_objective(negatives)
        self.ways = ways
        self.projection_dim = projection_dim
        self.head_epsilon = head_epsilon
        values = {
            "mlm": {"epsilon": head_epsilon},
            "itm": head_table.matching_values(matching),
            "itc": {"projection_dim": projection_dim, "ways": ways},
        }
        heads = {name: values[name] for name in self.objectives}
        super().__init__(backbone, preprocessor, heads, **kwargs)

    @classmethod
    def head_arguments(cls, heads):
        # The preprocessor asks for both, which no head names.
        asked = dict(
            objectives=preprocessing.OBJECTIVES, negatives="random_negatives"
        )
        saved = heads.get("itm", {}) | heads.get("itc", {})
        return asked | _epsilon(heads) | saved

    def inputs_of(self, backbone):
        inputs = super().inputs_of(backbone)
        if "itm" in self.objectives:
            for name, (dtype, shape) in self.pair_objective.drawn.items():
                inputs[name] = keras.Input(shape, dtype=dtype, name=name)
        return inputs

    def outputs_of(self, inputs):
        backbone, names = self.backbone, self.objectives
        image = backbone.image_tower(inputs["images"])
        outputs, read = {}, ["masked_token_ids"] * ("mlm" in names)
        read += ["token_ids"] * (names != ("mlm",))
        count, tower = len(read), backbone.text_tower
        given = {name: [inputs[name]] * count for name in tower.input}
        given["token_ids"] = [inputs[name] for name in read]
        # One pass for all texts: gradients of its weights are reduced once.
        texts = tower({k: _rows(_interleave)(x) for k, x in given.items()})
        split = _rows(lambda x: [x[i::count] for i in range(count)])
        texts = [*zip(*map(split, texts), strict=True)]
        if "mlm" in names:
            mask = inputs["padding_mask"]
            fused = backbone.fusion(texts[0], image, mask, outputs=("text",))
            outputs["mlm"] = _hidden_tokens(self, fused, inputs)
        if names != ("mlm",):
            parts = self.pair_objective, backbone, self.heads
            outputs |= pair_outputs(names, *parts, texts[-1], image, inputs)
        return outputs

    def label_words(self):
        return None if self.preprocessor else "labels that a preprocessor makes"

    def unread_layers(self):
        names = self.objectives
        text = ("text",) if "mlm" in names else ()
        three_way = "itc" in names and self.ways == "three_way"
        pooled = ("pooled",) if "itm" in names or three_way else ()
        return self.backbone.fusion.unread_layers(text + pooled)

    def default_loss(self):
        made = {
            "mlm": losses.MaskedLMLoss(),
            "itm": classification.class_loss(),
            "itc": losses.ContrastiveLoss(self.ways),
        }
        return {name: made[name] for name in self.objectives}

    def default_metrics(self):
        metrics = {
            "mlm": [keras_metrics.MaskedTokenAccuracy(name="accuracy")],
            "itm": [classification.class_accuracy()],
            "itc": [
                keras_metrics.ContrastiveAccuracy(self.ways, name="accuracy")
            ],
        }
        return {name: metrics[name] for name in self.objectives}


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerMaskedLM(BridgeTowerTask):
    """Predicts hidden tokens of texts about pictures.

    Args:
        backbone: a `BridgeTowerBackbone`.
        preprocessor: a `BridgeTowerMaskedLMPreprocessor`, or None.
        head_epsilon: float, epsilon of the head's layer norm.
        **kwargs: `name`, `compile`.

    Call arguments:
        inputs: dict of features, as the backbone's, and `"mask_positions"`
            int32 `(batch, M)`: places in the text, from 0.

    Returns:
        float32 tensor `(batch, M, vocabulary)`: logits at these places. In
        `fit` and `evaluate` `x` is a dict of `"images"` and `"text"`, and
        there is no `y`: the preprocessor hides tokens, which are the labels.

    Raises:
        ValueError: a preprocessor that does not fit the backbone.

    Example:

    ```python
    mlm = BridgeTowerMaskedLM.from_preset("bridgetower_tiny_easy_mlm")
    image = np.full((64, 64, 3), 255, "uint8")
    masks, text = mlm.fill_mask(image, "is there a <mask> shape?", top_k=2)
    ```

    Source: BridgeTower (AAAI 2023), masked language modeling.
    """

    preprocessor_cls = preprocessing.BridgeTowerMaskedLMPreprocessor
    task_name = "masked_lm"
    verbs = (verbs.FILL,)
    token_inputs = ("mask_positions",)
    config_arguments = ("head_epsilon",)

    def __init__(
        self, backbone, preprocessor=None, head_epsilon=1e-5, **kwargs
    ):
        head = {"epsilon": head_epsilon}
        super().__init__(backbone, preprocessor, {"mlm": head}, **kwargs)
        self.head_epsilon = head_epsilon

    def outputs_of(self, inputs):
        fused = self.backbone.fuse(inputs, outputs=("text",))
        return _hidden_tokens(self, fused, inputs)

    def label_words(self):
        return None if self.preprocessor else "labels that a preprocessor makes"

    def unread_layers(self):
        return self.backbone.fusion.unread_layers(("text",))

    @classmethod
    def head_arguments(cls, heads):
        return _epsilon(heads)

    def check_request(self, texts=(), top_k=1):
        preprocessor = self.needed_preprocessor()
        size = preprocessor.tokenizer.vocabulary_size()
        check_at_most("top_k", top_k, size, "tokens of the vocabulary")
        if texts:
            preprocessor.text_with_blanks(list(texts))

    def fill_mask(self, images, texts, top_k=1, batch_size=32):
        """Predict the token at each `<mask>` of a text about a picture.

        Args:
            images: one picture or a list: paths, encoded bytes, PIL images
                or arrays (see `load_image`).
            texts: one text or a list, as many as pictures. White space before
                a `<mask>` belongs to it.
            top_k: int, number of tokens for each mask.
            batch_size: int, texts per forward pass.

        Returns:
            `(masks, text)`: for each mask of the text a list of `(token,
            probability)` with the best first, tokens as they are written,
            most with a space before them; and the text with the best token
            at each place. A list of such pairs where lists came in.

        Raises:
            ValueError: no preprocessor, unequal counts, unreadable pictures,
                a text without `<mask>` or with one beyond the tokenizer's
                `sequence_length`, or `top_k` out of range.

        Example:

        ```python
        mlm.fill_mask("photo.png", "a small <mask> circle.", top_k=3)
        ```
        """
        self.check_request(top_k=top_k)
        tokenizer = self.preprocessor.tokenizer
        size = tokenizer.vocabulary_size()
        sources = [
            verb_inputs.Pictures(self.preprocessor, images),
            verb_inputs.MaskedTexts(self.preprocessor, texts),
        ]
        verb_inputs.check_numbers(sources, repeat=False)
        results = []
        for features, logits in self.batches(
            *("fill_mask", sources, batch_size),
            buckets=self.preprocessor.buckets,
        ):
            # An encoder may have more rows than tokens there are.
            some = logits[..., :size]
            ids, places = features["token_ids"], features["mask_positions"]
            for row in zip(ids, places, some, strict=True):
                results.append(_filled(tokenizer, top_k, *row))
        return verb_inputs.one_or_all(results, sources)

    def default_loss(self):
        return losses.MaskedLMLoss()

    def default_metrics(self):
        return [keras_metrics.MaskedTokenAccuracy()]


def _interleave(tensors):
    """Join the rows of tensors so that each row stays on its device."""
    shape = ops.shape(tensors[0])[1:]
    return ops.reshape(ops.stack(tensors, axis=1), (-1, *shape))


def _rows(function):
    return keras.layers.Lambda(function, autocast=False)


def _epsilon(heads):
    saved = heads.get("mlm", {})
    return {"head_epsilon": saved["epsilon"]} if saved else {}


def _hidden_tokens(task, fused, inputs):
    """Compute the logits of the hidden tokens."""
    places = inputs["mask_positions"]
    return task.heads["mlm"](backend_ops.take_tokens(fused["text"], places))


def _filled(tokenizer, top_k, ids, positions, logits):
    """Return the best tokens of each mask of one text, and the filled text."""
    places = positions[: (ids == tokenizer.mask_token_id).sum()]
    logits = logits[: len(places)].astype("float64")
    best = np.argsort(-logits, axis=-1, kind="stable")[:, :top_k]
    masks = [
        [(_token_text(tokenizer, i), float(row[i])) for i in order]
        for row, order in zip(classification.softmax(logits), best, strict=True)
    ]
    ids = ids.copy()
    ids[places] = best[:, 0]
    return masks, tokenizer.detokenize(ids)


def _token_text(tokenizer, token_id):
    # Special tokens are written as nothing, and so called by name.
    written = tokenizer.detokenize(np.array([token_id]))
    return written or tokenizer.id_to_token(token_id)
