"""Retrieval and reranking: which pictures and texts match best."""

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.checks import check_count
from keras_bridgetower.metrics import calibration
from keras_bridgetower.metrics.keras_metrics import NDCG
from keras_bridgetower.metrics.keras_metrics import ContrastiveAccuracy
from keras_bridgetower.models import head_table
from keras_bridgetower.models.heads import fuse_pairs
from keras_bridgetower.objectives import pair_objectives
from keras_bridgetower.objectives.list_losses import ListwiseSoftmaxLoss
from keras_bridgetower.objectives.list_losses import MarginMSELoss
from keras_bridgetower.objectives.losses import ContrastiveLoss
from keras_bridgetower.preprocessing import retrieval as preprocessing
from keras_bridgetower.preprocessing.images import decoded
from keras_bridgetower.preprocessing.verb_inputs import check_numbers
from keras_bridgetower.presets import verbs
from keras_bridgetower.tasks import keep_states
from keras_bridgetower.tasks import ranking
from keras_bridgetower.tasks.classification import class_accuracy
from keras_bridgetower.tasks.classification import class_loss
from keras_bridgetower.tasks.inference import joined
from keras_bridgetower.tasks.task import BridgeTowerTask
from keras_bridgetower.tasks.task import check_made_for

# Bytes that a ranking uses by default.
MEMORY = 4 * 2**30
# Pictures of a judged list by default.
LIST_SIZE = 8


@dataclasses.dataclass(frozen=True)
class TopMatches:
    """The best matches, in both directions.

    Args:
        images: list with one entry for each text: a list of
            `(index of an image, score)`, the best first.
        texts: list with one entry for each image: a list of
            `(index of a text, score)`, the best first. Pairs that a
            shortlist left out are in neither.
    """

    images: list
    texts: list


def top_matches(scores, top_k):
    """Return the best matches of a matrix of scores.

    Args:
        scores: float array `(images, texts)`.
        top_k: int, how many of each row and column; fewer where there are
            no more.

    Returns:
        `TopMatches`.

    Example:

    ```python
    scores = np.array([[0.9, 0.1], [0.3, 0.8], [0.7, 0.2]])
    top_matches(scores, top_k=1).images  # [[(0, 0.9)], [(1, 0.8)]]
    ```
    """

    def best(row):
        order = np.argsort(-row, kind="stable")[:top_k].tolist()
        return [
            (i, float(row[i])) for i in order if row[i] > ranking.NOT_SCORED
        ]

    return TopMatches([best(x) for x in scores.T], [best(x) for x in scores])


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerRetrieval(BridgeTowerTask):
    """Scores how well pictures and texts match, and ranks them.

    Heads that take no part in the objective are frozen, and with ranking the
    matching head, from whose row for "match" a new ranking head starts.

    Args:
        backbone: a `BridgeTowerBackbone`.
        preprocessor: a `BridgeTowerRetrievalPreprocessor` of the same
            objective, or None.
        objective: the objective of `fit`. `"random_negatives"`: matching,
            half of the texts with another image; `"hard_negatives"`: matching
            of those that look alike, and the contrastive loss that finds
            them; `"ranking"`: which of 16 texts is the image's; or
            `"ranking_and_matching"`, as the authors.
        projection_dim: int, width of the contrastive heads' space, or None
            for no such heads; `"hard_negatives"` and `shortlist` need them.
        ways: `"two_way"` as the authors or `"three_way"` as transformers,
            form of the contrastive heads.
        matching: what the matching head reads. `"fused"`: the pooled
            representation, as the authors; `"similarity_and_fused"`: also the
            product of the contrastive vectors, from which the score starts;
            `"word_similarity_and_fused"`: and the mean over words of their
            largest similarity to a patch, as in FILIP.
        **kwargs: `name`, `compile`.

    Call arguments:
        inputs: dict of features, as the backbone's. With drawn features (see
            the preprocessor) the drawn pairs are scored, without them the
            given pairs.

    Returns:
        float32 logits of the pairs `(batch, 2)`, no match and match; with
        ranking `(batch, 1)`. For drawn pairs the input of the loss. In `fit`
        and `evaluate` `y` is image ids (see
        `BridgeTowerRetrievalPreprocessor`).

    Raises:
        ValueError: an unknown objective, one that needs `projection_dim`, or
            one that differs from the preprocessor's.

    Example:

    ```python
    task = BridgeTowerRetrieval(backbone)
    logits = task.predict(features)
    keras.ops.softmax(logits)[:, 1]  # Probability that each pair matches.
    ```

    Source: BridgeTower (AAAI 2023), pre-training and retrieval fine-tuning.
    """

    preprocessor_cls = preprocessing.BridgeTowerRetrievalPreprocessor
    label_arguments = ("objective",)
    task_name = "retrieval"
    verbs = (verbs.SCORE,)
    config_arguments = ("objective", "projection_dim", "ways", "matching")
    recipe_arguments = {n: n for n in ("objective", "projection_dim")}

    def __init__(
        self,
        backbone,
        preprocessor=None,
        objective="random_negatives",
        projection_dim=None,
        ways="two_way",
        matching="fused",
        **kwargs,
    ):
        # The base class's constructor reads it.
        self.pair_objective = pair_objectives.make_objective(objective)
        self.ways = ways
        check_made_for(preprocessor, objective=objective)
        heads = {"itm": head_table.matching_values(matching)}
        if projection_dim is not None:
            heads["itc"] = {"projection_dim": projection_dim, "ways": ways}
        if "rank" in self.pair_objective.heads:
            heads["rank"] = {}
        needed = set(self.pair_objective.heads)
        if matching != "fused":
            needed.add("itc")
        if not needed <= set(heads):
            raise ValueError(
                f"`projection_dim` must be a width, such as 256, for the "
                f"objective {objective!r} and matching={matching!r}. Received: "
                "projection_dim=None"
            )
        super().__init__(backbone, preprocessor, heads, **kwargs)
        self.objective = objective
        self.projection_dim = projection_dim
        self.matching = matching
        learning = set(self.pair_objective.heads) - {*self.pair_objective.fixed}
        for name in heads:
            self.heads[name].trainable = name in learning
        self.start_heads(set(heads))

    @property
    def answering_heads(self):
        """The head whose logits say how well a pair matches."""
        return self.pair_objective.heads[:1]

    def outputs_of(self, inputs):
        backbone, heads = self.backbone, self.heads
        states = [
            backbone.text_tower(inputs),
            backbone.image_tower(inputs["images"]),
        ]
        names = self.pair_objective.heads
        if not set(self.pair_objective.drawn) <= set(inputs):
            head, mask = heads[names[0]], inputs["padding_mask"]
            read, _ = fuse_pairs(backbone.fusion, heads, head, *states, mask)
            return head(read)
        parts = self.pair_objective, backbone, heads
        outputs = pair_objectives.pair_outputs(names, *parts, *states, inputs)
        return pair_objectives.only_or_all(outputs)

    def label_widths(self):
        return self._by_head(self.pair_objective.widths)

    def start_heads(self, new):
        if "rank" in new:
            # The row that says "match".
            itm, rank = (
                self.heads[name].output_dense for name in ("itm", "rank")
            )
            rank.kernel.assign(itm.kernel[:, pair_objectives.MATCH :])
            rank.bias.assign(itm.bias[pair_objectives.MATCH :])
        return new if "itm" in new else new - {"rank"}

    @classmethod
    def head_arguments(cls, heads):
        saved = heads.get("itm", {}) | heads.get("itc", {})
        # The preprocessor asks for an objective, which no head names.
        return {"objective": "random_negatives", **saved}

    def score(self, images, texts, batch_size=32):
        """Score how well pictures and texts match, pair by pair.

        Args:
            images: one picture or a list: paths, encoded bytes, PIL images
                or arrays (see `load_image`).
            texts: one text or a list, as many as pictures. One picture that
                is not in a list is paired with every text, one text that is
                not in a list with every picture.
            batch_size: int, pairs per forward pass.

        Returns:
            float32 array `(pairs,)`, a float for one pair; higher is better.
            A matching head's score is its logit of "match" minus that of no
            match, the log-odds of a match, which compares texts as well as
            pictures. A ranking head's is its logit.

        Raises:
            ValueError: no preprocessor, nothing to score, lists of different
                length, unreadable pictures or empty texts.

        Example:

        ```python
        retrieval.score("photo.png", ["a red circle", "a blue square"])
        ```
        """
        logits = self.outputs_for("score", images, texts, batch_size)
        scores = calibration.match_scores(logits)
        return scores if scores.ndim else float(scores)

    def match_logits(self, images, texts, batch_size=32):
        """Compute the logit of "match" alone: `logits[:, 1]` of transformers.

        It orders pictures for a text, but not the texts of a picture.

        Args:
            images, texts, batch_size: as `score`.

        Returns:
            float32 array `(pairs,)`, a float for one pair.

        Raises:
            ValueError: as `score`.
        """
        logits = self.outputs_for("match_logits", images, texts, batch_size)
        return logits[:, -1] if logits.ndim > 1 else float(logits[-1])

    def image_states(self, images, batch_size=32):
        """Compute the states of pictures, as `keep_states`, without a folder.

        The verbs take them in place of the pictures.

        Args:
            images: one picture or a list, as `score` takes them.
            batch_size: int, pictures per forward pass.

        Returns:
            `KeptStates`, in memory.

        Raises:
            ValueError: no preprocessor, no pictures, or unreadable ones.

        Example:

        ```python
        states = retrieval.image_states(["a.png", "b.png"])
        retrieval.score_states(states, "a red circle")  # Reads no picture.
        ```
        """
        return keep_states.in_memory(self, images, batch_size)

    def score_states(self, image_states, text, batch_size=32, fusion=None):
        """Score how well pictures match a text: a column of `rank`.

        Args:
            image_states: `KeptStates`, or pictures as `score` takes them.
            text: str.
            batch_size: int, pictures per forward pass.
            fusion: callable that replaces the fusion and its head, such as
                `search.ExportedFusion`: from a dict of arrays, float32
                `"text_states"` and `"image_states"`, `(pictures, layers,
                tokens, width)`, int32 `"padding_mask"`, `(pictures, tokens)`,
                and float32 `"similarity"`, `(pictures,)`, if the head reads
                it, to float logits `(pictures, outputs)`. None for the task's
                own.

        Returns:
            float32 array `(pictures,)`, as `score`.

        Raises:
            ValueError: no preprocessor, an empty text, or states of another
                tower.
        """
        given = image_states, [text], batch_size, MEMORY
        return self._ranked("score_states", *given, fusion=fusion)[:, 0]

    def fusion_inputs(self, images, texts, batch_size=32):
        """Compute the fusion's inputs of pairs, for `export`'s calibration.

        Args:
            images, texts, batch_size: as `score`.

        Returns:
            dict of arrays: float32 `"image_states"` and `"text_states"`,
            `(pairs, layers, tokens, width)`, and int32 `"padding_mask"`.

        Raises:
            ValueError: as `score`.

        Example:

        ```python
        given = retrieval.fusion_inputs(["a.png"], ["a red circle"])
        retrieval.export(
            "fusion.onnx", "onnx", part="fusion", calibration=given)
        ```
        """
        sources = self.sources(images, texts, "texts")
        parts = ranking.ranking_parts(self)

        def forward(features):
            image = parts.image({"images": features.pop("images")})
            text = parts.text(features)
            given = {
                "image_states": image["states"],
                "text_states": text["states"],
                "padding_mask": features["padding_mask"],
            }
            if parts.reads_similarity:
                near = image["embedding"] * text["embedding"]
                given["similarity"] = ops.sum(near, axis=-1)
            return given

        check_numbers(sources)
        return joined(
            self.batches("score", sources, batch_size, forward=forward)
        )

    def rank(
        self,
        images,
        texts,
        top_k=None,
        shortlist=None,
        max_memory=MEMORY,
        cache_dir=None,
        batch_size=32,
        verbose=1,
    ):
        """Score all pictures with all texts.

        Each tower runs once for each picture and once for each text; only
        the fusion runs for the pairs, picture block by picture block.

        Args:
            images: list of N pictures, in any form that `score` takes, or
                one picture.
            texts: list of M texts, or one text.
            top_k: int. If given, the best `top_k` in both directions are
                returned in place of all scores.
            shortlist: int k. If given, only the k texts closest to each
                picture and the k pictures closest to each text by the
                contrastive heads are scored, as in the authors' evaluation.
                Larger values are clamped, with a warning.
            max_memory: int, bytes for states and work at a time. Texts (and
                with `shortlist` pictures) whose states do not fit wait in a
                temporary file. Scores, 4 bytes a pair, and what was passed
                in are not counted.
            cache_dir: path of a folder that keeps the scores of finished
                blocks. The same call after an interruption continues with the
                next block and gives the same numbers, to the bit.
            batch_size: int, pairs, pictures or texts per forward pass.
            verbose: int, 0 for no progress bar of the pictures.

        Returns:
            float32 array `(N, M)`, as of `score`, -100 where the shortlist
            left a pair out. With `top_k`, `TopMatches`.

        Raises:
            ValueError: no preprocessor, no pictures or texts, `shortlist`
                without contrastive heads, too little memory for a single
                block, or a `cache_dir` of another call.

        Example:

        ```python
        scores = retrieval.rank(["photo.png"], ["a circle", "a square"])
        retrieval.rank("photo.png", ["a circle", "a square"], top_k=1).texts
        ```

        Source: `compute_irtr_itm_itc_recall` of BridgeTower.
        """
        for name, value in (("top_k", top_k), ("shortlist", shortlist)):
            if value is not None:
                check_count(name, value)
        check_count("batch_size", batch_size)
        check_count("max_memory", max_memory)
        chosen = batch_size, max_memory, shortlist, cache_dir, verbose
        scores = self._ranked("rank", images, texts, *chosen)
        return scores if top_k is None else top_matches(scores, top_k)

    def _ranked(self, verb, images, texts, *chosen, **others):
        """Return `ranking.rank` of pictures and texts, for a verb."""
        sources = self.sources(images, texts, "texts")
        with self.inference.read_lock(verb):
            return ranking.rank(self, *sources, *chosen, **others)

    def match_probabilities(self, images, texts, batch_size=32):
        """Compute how probably each picture and each text match.

        Args:
            images: list of N pictures, in any form that `score` takes, or
                one picture.
            texts: list of M texts, or one text.
            batch_size: int, pairs, pictures or texts per forward pass.

        Returns:
            float32 array `(N, M)` in 0..1. A matching head judges each pair
            on its own. A ranking head compares the texts of a picture, so
            each row adds up to 1.

        Raises:
            ValueError: no preprocessor, no pictures or texts, unreadable
                pictures or empty texts.

        Example:

        ```python
        retrieval.match_probabilities(["photo.png"], ["a circle", "a square"])
        ```
        """
        given = images, texts, batch_size, MEMORY
        scores = self._ranked("match_probabilities", *given)
        return calibration.match_shares(scores, "rank" in self.answering_heads)

    def default_loss(self):
        classes = {name: class_loss() for name in ("itm", "rank")}
        return self._by_head({**classes, "itc": ContrastiveLoss(self.ways)})

    def default_metrics(self):
        classes = {name: [class_accuracy()] for name in ("itm", "rank")}
        nearest = ContrastiveAccuracy(self.ways, name="accuracy")
        return self._by_head({**classes, "itc": [nearest]})

    def _by_head(self, values):
        """Return the value of the only head, or a dict for several."""
        asked = {name: values[name] for name in self.pair_objective.heads}
        return pair_objectives.only_or_all(asked)


@dataclasses.dataclass(eq=False)
class BridgeTowerReranker:
    """Reranks pictures by a text, or texts by a picture.

    It has `predict` and `rank` as sentence-transformers' `CrossEncoder` has
    them, without importing it. `export_to_sentence_transformers` is for that
    library; for LangChain, LlamaIndex, Haystack and LanceDB see
    `keras_bridgetower.apps.search.adapters`.

    One item of each pair is a text, the other a picture: a path, bytes,
    base64, a PIL image or an array. Of two strings the first is the text;
    `{"text": ...}` and `{"image": ...}` say which is which.

    Args:
        task: a `BridgeTowerRetrieval` with a preprocessor.
        batch_size: int, pairs of a forward pass.

    Example:

    ```python
    reranker = BridgeTowerReranker(retrieval)
    pictures = list(np.zeros((3, 64, 64, 3), "uint8"))
    reranker.rank("a red circle", pictures, top_k=2)
    reranker.predict([("a red circle", pictures[0])])  # (1,)
    ```
    """

    task: BridgeTowerRetrieval
    batch_size: int = 32

    @classmethod
    def from_preset(cls, preset, batch_size=32, **kwargs):
        """Create a reranker with the matching head of a preset.

        Args:
            preset: as `BridgeTowerRetrieval.from_preset`.
            batch_size: as the class.
            **kwargs: further arguments of `BridgeTowerRetrieval.from_preset`.

        Raises:
            ValueError: no such preset, or one without a matching head.
        """
        task = BridgeTowerRetrieval.from_preset(preset, **kwargs)
        task.new_heads.check("rank", task.answering_heads)
        return cls(task, batch_size)

    def predict(self, inputs, batch_size=None):
        """Score pairs of a text and a picture.

        Args:
            inputs: list of pairs, or one pair, as the class describes them.
            batch_size: int, pairs of a forward pass, or None for the
                reranker's own.

        Returns:
            float32 array `(pairs,)`, for one pair a float32, as
            `BridgeTowerRetrieval.score` returns them. Higher is better.

        Raises:
            ValueError: a pair that is not a text and a picture, an empty
                text, or a picture that cannot be read.
        """
        if not len(inputs):
            return np.zeros(0, "float32")
        one = not isinstance(inputs[0], (list, tuple))
        pairs = [inputs] if one else inputs
        pairs = [_read(pair, f"inputs[{i}]") for i, pair in enumerate(pairs)]
        size = self.batch_size if batch_size is None else batch_size
        texts, pictures = map(list, zip(*pairs, strict=True))
        scores = self.task.score(pictures, texts, size)
        return scores[0] if one else scores

    def rank(
        self,
        query,
        documents,
        top_k=None,
        return_documents=False,
        batch_size=None,
    ):
        """Sort pictures by how well a text fits them, or texts by a picture.

        Args:
            query: a text, or a picture that is not a str, or `{"image": ...}`.
            documents: list of pictures, for a picture list of texts.
            top_k: int, how many are returned; None for all.
            return_documents: bool, whether each result holds its document.
            batch_size: as `predict`.

        Returns:
            list of dicts, best first: `"corpus_id"`, the index of the
            document, `"score"` as of `predict`, and with `return_documents`
            `"text"`, the document itself.

        Raises:
            ValueError: as `predict`.
        """
        if top_k is not None:
            check_count("top_k", top_k)
        scores = self.predict(
            [(query, document) for document in documents], batch_size
        )
        order = np.argsort(-scores, kind="stable")[:top_k].tolist()
        found = [{"corpus_id": i, "score": float(scores[i])} for i in order]
        if return_documents:
            for result in found:
                result["text"] = documents[result["corpus_id"]]
        return found


def _read(pair, name):
    """Return the text and the picture of a pair."""
    if len(pair) == 2:
        first, second = map(_kinds, pair)
        for text, picture in ((first, second), (second, first)):
            if "text" in text and "image" in picture:
                return text["text"], decoded(picture["image"], name)
    raise ValueError(
        f"`{name}` must be a text and a picture. Received: {pair!r:.200}"
    )


def _kinds(item):
    """Return an item by its possible kinds: a str is a text or a path."""
    if isinstance(item, dict):
        return item if len(item) == 1 else {}
    kinds = ("text", "image") if isinstance(item, str) else ("image",)
    return dict.fromkeys(kinds, item)


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerListRanking(BridgeTowerTask):
    """Learns to rank pictures by a text from judged lists, or from clicks.

    Trains the matching head of `BridgeTowerRetrieval`: save the task, and
    open it as a `BridgeTowerReranker`. Only the order of its scores has a
    meaning then; probabilities of a match have none. The text tower runs once
    per list. A batch of 32 lists of 8 holds 256 pictures: choose a small
    `batch_size`.

    Args:
        backbone: a `BridgeTowerBackbone`.
        preprocessor: a `BridgeTowerListRankingPreprocessor`, or None.
        list_size: int, pictures of a list; None for that of the preprocessor,
            8 without one.
        labels: `"grades"`, or `"scores"` of a teacher.
        projection_dim, ways, matching: as `BridgeTowerRetrieval`. Contrastive
            heads are not trained, and are there if the matching head reads
            them.
        **kwargs: `name`, `compile`.

    Call arguments:
        inputs: dict of features, as the backbone's, but `"images"` float
            `(batch, list_size, S, S, 3)`.

    Returns:
        float32 tensor `(batch, list_size)`: the scores of
        `BridgeTowerRetrieval.score`. In `fit` and `evaluate` `x`
        is a dict of `"images"`, lists of pictures, and `"text"`, and `y` are
        grades (see `BridgeTowerListRankingPreprocessor`). The default loss is
        `ListwiseSoftmaxLoss`, the metric `NDCG`; of scores `MarginMSELoss`.

    Raises:
        ValueError: a preprocessor that does not fit the backbone, or one of
            another `list_size`.

    Example:

    ```python
    task = BridgeTowerListRanking.from_preset(
        "bridgetower_tiny_easy_retrieval", list_size=2)
    task.compile(loss=kbt.LambdaRankLoss())
    images = np.zeros((3, 2, 64, 64, 3), "uint8")
    task.fit({"images": images, "text": ["a", "b", "c"]}, [[1, 0]] * 3)
    ```
    """

    preprocessor_cls = preprocessing.BridgeTowerListRankingPreprocessor
    label_arguments = ("list_size", "labels")
    config_arguments = (
        *label_arguments,
        *("projection_dim", "ways", "matching"),
    )
    task_name = "list_ranking"

    def __init__(
        self,
        backbone,
        preprocessor=None,
        list_size=None,
        labels="grades",
        projection_dim=None,
        ways="two_way",
        matching="fused",
        **kwargs,
    ):
        if list_size is None:
            list_size = getattr(preprocessor, "list_size", LIST_SIZE)
        check_count("list_size", list_size)
        check_made_for(preprocessor, list_size=list_size, labels=labels)
        self.labels = labels
        # The base class's constructor reads these.
        self.list_size = int(list_size)
        self.pictures = (self.list_size,)
        heads = {"itm": head_table.matching_values(matching)}
        if matching != "fused":
            heads["itc"] = {"projection_dim": projection_dim, "ways": ways}
        self.projection_dim, self.ways = projection_dim, ways
        self.matching = matching
        super().__init__(backbone, preprocessor, heads, **kwargs)
        if "itc" in heads:
            self.heads["itc"].trainable = False

    def outputs_of(self, inputs):
        backbone, images = self.backbone, inputs["images"]

        def for_each(x):
            return backend_ops.repeat_rows(x, self.list_size)

        head = self.heads["itm"]
        read, _ = fuse_pairs(
            *(backbone.fusion, self.heads, head),
            [for_each(x) for x in backbone.text_tower(inputs)],
            backbone.image_tower(ops.reshape(images, (-1, *images.shape[2:]))),
            for_each(inputs["padding_mask"]),
        )
        scores = calibration.match_scores(head(read))
        return ops.reshape(scores, (-1, self.list_size))

    @classmethod
    def head_arguments(cls, heads):
        matching = heads.get("itm", {}) | heads.get("itc", {})
        return {"list_size": LIST_SIZE, "labels": "grades", **matching}

    def label_widths(self):
        # Grades are no classes.
        return None

    def default_loss(self):
        graded = self.labels == "grades"
        return ListwiseSoftmaxLoss() if graded else MarginMSELoss()

    def default_metrics(self):
        return [NDCG()] if self.labels == "grades" else []
