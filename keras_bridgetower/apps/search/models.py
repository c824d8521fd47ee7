"""The models of a search, and their fusion exported to ONNX."""

import dataclasses
import importlib.util
import json
import pathlib

import keras
import numpy as np

from keras_bridgetower import BridgeTowerContrastive
from keras_bridgetower import BridgeTowerRetrieval
from keras_bridgetower import ExportedModel
from keras_bridgetower.apps.predict.batches import each_in_batches
from keras_bridgetower.checks import check_choice
from keras_bridgetower.files import read_json
from keras_bridgetower.files import write_folder
from keras_bridgetower.models import head_table
from keras_bridgetower.models.heads import embedding_kinds
from keras_bridgetower.preprocessing.geometry import as_square
from keras_bridgetower.preprocessing.images import open_image
from keras_bridgetower.presets import registry
from keras_bridgetower.presets.table import PRESETS
from keras_bridgetower.presets.table import named_heads
from keras_bridgetower.presets.table import preset_name
from keras_bridgetower.tasks import by_name
from keras_bridgetower.tasks import keep_states
from keras_bridgetower.tasks.identity import model_checksum
from keras_bridgetower.tasks.identity import picture_settings
from keras_bridgetower.tasks.identity import text_settings
from keras_bridgetower.tasks.identity import weight_sums

# What `training.reranker` writes beside a preset.
_REPORT, _LARGEST = "report.json", 1_000_000
# How a query may be cut: the matching head reads the start of a text.
_LONG_TEXTS = ("refuse", "cut_end")
# Files of an exported fusion.
FILE, IDENTITY = "fusion.onnx", "fusion.json"


@dataclasses.dataclass(eq=False)
class SearchModels:
    """A task that embeds pictures and texts, and one that scores pairs.

    Args:
        contrastive: a `BridgeTowerContrastive` with a preprocessor and a
            trained head. Its vectors find the pictures.
        retrieval: a `BridgeTowerRetrieval` with a preprocessor, which orders
            what was found; or None. It may share the backbone.
        preset: str, the name of the preset that both are from, by which an
            index opens them again, and which may say that its scores need
            the similarity too (`similarity_weight`); or None.
        long_texts: `"refuse"`, or `"cut_end"` to read the start of texts that
            are longer than the preprocessor's tokens.
        fusion: `ExportedFusion`, which reranks in place of the fusion of
            `retrieval`, or None.
        reranks: bool, whether a query reranks by default. `from_preset` takes
            it from the table or the report of the preset: True only if a
            gain was measured.

    Raises:
        ValueError: an untrained contrastive head.

    Example:

    ```python
    models = SearchModels.from_preset("bridgetower_tiny_easy_pretrain")
    models.embed_query(text="a red circle").shape  # (64,)
    ```
    """

    contrastive: BridgeTowerContrastive
    retrieval: BridgeTowerRetrieval | None = None
    preset: str | None = None
    long_texts: str = "refuse"
    fusion: "ExportedFusion | None" = None
    reranks: bool = False

    def __post_init__(self):
        check_choice("long_texts", self.long_texts, _LONG_TEXTS)
        if self.contrastive.new_heads.still_random(("itc",)):
            raise ValueError(_no_head(self.preset))
        if self.fusion is not None and self.retrieval is None:
            raise ValueError("`fusion` needs a preset with a matching head.")

    @classmethod
    def from_preset(
        cls,
        preset,
        long_texts="refuse",
        fusion=None,
        precision="float32",
        **kwargs,
    ):
        """The models of a preset, which share one backbone.

        Args:
            preset: as `BridgeTowerContrastive.from_preset`.
            long_texts: as the class.
            fusion: path of a folder that `export_fusion` wrote, or None.
            precision: `"float32"` or `"bfloat16"`, of that fusion.
            **kwargs: `image_size`, `image_mode`, `sequence_length`,
                `image_tokens`, `dtype` and `revision`, as there.

        Raises:
            ValueError: no such preset, or one without contrastive head; or a
                fusion of other weights.
        """
        folder = registry.open_preset(preset, kwargs.pop("revision", None))
        saved = head_table.saved_heads(folder)
        if "itc" not in saved:
            raise ValueError(_no_head(preset))
        contrastive = BridgeTowerContrastive.from_preset(folder, **kwargs)
        retrieval = None
        if {"itm", "rank"} & set(named_heads(preset, saved)):
            objective = "ranking" if "rank" in saved else "random_negatives"
            values = {"objective": objective}
            if saved.get("itm"):
                # Its score reads the vectors, so it needs their head too.
                values = BridgeTowerRetrieval.head_arguments(saved) | values
            retrieval = by_name.task_around(
                contrastive.backbone,
                BridgeTowerRetrieval,
                folder,
                saved,
                values,
                kwargs,
            )
        if fusion is not None and retrieval is not None:
            fusion = ExportedFusion(fusion, retrieval, precision)
        elif precision != "float32":
            raise ValueError(
                "`precision` is that of an exported `fusion`; use `dtype` for "
                f"the models. Received: precision={precision!r}"
            )
        name = preset_name(preset)
        reranks = improves_lists(preset, folder)
        return cls(contrastive, retrieval, name, long_texts, fusion, reranks)

    @property
    def similarity_weight(self):
        """float, what the similarity counts beside the score."""
        known = PRESETS.get(self.preset)
        return known.similarity_weight if known else 0.0

    @property
    def dtype(self):
        """str, the name of the dtype policy in which they compute."""
        return self.contrastive.backbone.dtype_policy.name

    def identity(self, vectors):
        """Return the plain values that determine vectors of these models.

        Args:
            vectors: `"image"` or `"fused"`, what is embedded.
        """
        preprocessor = self.contrastive.needed_preprocessor()
        # Texts of queries may be longer than those of an index.
        texts = text_settings(preprocessor) if vectors == "fused" else {}
        return {
            "sum": model_checksum(self.contrastive),
            **picture_settings(preprocessor),
            **texts,
            "image_tokens": self.contrastive.backbone.fusion.image_tokens,
            "vectors": vectors,
            "width": self.contrastive.projection_dim,
        }

    def check_kind(self, vectors):
        """Refuse to embed what the contrastive head has no part for."""
        known = set(embedding_kinds(self.contrastive.ways)) - {"text"}
        check_choice("vectors", vectors, sorted(known))

    def embed(self, batch_size=32, **given):
        """`BridgeTowerContrastive.embed` by the rule for long texts."""
        return self.contrastive.embed(
            batch_size=batch_size, long_texts=self.long_texts, **given
        )

    def embed_query(self, text=None, image=None):
        """The vector of a query.

        Args:
            text: str, or None.
            image: a picture, or None. With both, the vector is that of the
                pair; where the head is two-way, the mean of both vectors, of
                length 1.

        Returns:
            float32 array `(width,)`.

        Raises:
            ValueError: neither is given, an empty text, one that is too long,
                or an unreadable picture.
        """
        given = {"texts": text, "images": image}
        given = {name: x for name, x in given.items() if x is not None}
        if not given:
            raise ValueError("`text` or `image` must be given, or both.")
        if len(given) == 1 or "fused" in embedding_kinds(self.contrastive.ways):
            vector = self.embed(**given)
        else:
            mean = sum(self.embed(**{name: x}) for name, x in given.items())
            vector = mean / np.linalg.norm(mean)
        if vector.ndim != 1:
            raise ValueError(
                "`text` and `image` must be one text and one picture, not "
                f"lists. Received: {len(vector)} of them"
            )
        return vector

    def image_states(self, images, batch_size):
        """Return `KeptStates` of pictures, in memory."""
        return keep_states.in_memory(self.contrastive, images, batch_size)

    def describe_states(self, kind):
        """Return as plain values what the states that are matched are of."""
        task = self.retrieval or self.contrastive
        return keep_states.describe(task, "image", kind, 0)

    def matches(self, paths, text, batch_size):
        """Score picture files with a text, a batch of files at a time.

        Args:
            paths: list of str.
            text: str.
            batch_size: int, files that are read for a forward pass.

        Returns:
            list, for each file `BridgeTowerRetrieval.score`, a float, or the
            ValueError for which it cannot be read.
        """
        return match_files(self.retrieval, paths, text, batch_size, self.fusion)


def match_files(retrieval, paths, text, batch_size, fusion=None):
    """Score picture files with a text, as `SearchModels.matches`."""

    def read(path):
        # A square takes far less memory than most pictures.
        square = retrieval.needed_preprocessor().image_converter.square
        return as_square(open_image(path, "picture"), square, "picture")

    def score(paths):
        pictures = [read(path) for path in paths]
        found = retrieval.score_states(pictures, text, batch_size, fusion)
        return found.tolist()

    return each_in_batches(score, paths, batch_size)


def improves_lists(preset, folder):
    """Return whether matching is known to improve the lists of a preset.

    Args:
        preset: as `SearchModels.from_preset`. Its row in the table says so.
        folder: its `PresetFolder`. Without a row its report says so, which
            the training of a reranker wrote.

    Raises:
        ValueError: the report is no JSON.
    """
    known, report = PRESETS.get(preset_name(preset)), folder.root / _REPORT
    if known is not None:
        return known.reranks
    if not report.exists():
        return False
    found = read_json(report, _LARGEST)
    return isinstance(found, dict) and found.get("helps") is True


def _no_head(preset):
    return (
        "`preset` must have a trained contrastive head, as "
        f"'bridgetower_large_itm_mlm_itc'. Received: preset={preset!r}"
    )


def export_fusion(retrieval, folder, pairs=None):
    """Write the fusion of a task, for `ExportedFusion`.

    Args:
        retrieval: a `BridgeTowerRetrieval` in float32, on PyTorch.
        folder: path of a new folder.
        pairs: `(images, texts)`, two lists of one length as `score` takes
            them, some hundreds of typical pairs. The matrix products are then
            computed in int8, with the value ranges of these pairs. None for
            float32.

    Raises:
        ValueError: another backend or dtype, or a folder that exists.
        ImportError: the extra `export` is not installed.

    Example:

    ```python
    export_fusion(models.retrieval, "fusion")
    models = SearchModels.from_preset("my_model", fusion="fusion")
    ```
    """
    backend, dtype = keras.config.backend(), retrieval.compute_dtype
    if (backend, dtype) != ("torch", "float32"):
        raise ValueError(
            "A fusion is exported with KERAS_BACKEND=torch and in float32. "
            f"Received: {backend}, {dtype}"
        )

    def save(part):
        retrieval.export(
            pathlib.Path(part, FILE),
            format="onnx",
            part="fusion",
            calibration=pairs and retrieval.fusion_inputs(*pairs),
        )
        identity = json.dumps(_identity(retrieval))
        pathlib.Path(part, IDENTITY).write_text(identity)

    write_folder(folder, save, name="folder")


def _identity(retrieval):
    """Return the head and checksums of all that an exported fusion holds."""
    (head,) = retrieval.answering_heads
    layers = retrieval.backbone.fusion, retrieval.heads[head]
    sums = weight_sums(weight for layer in layers for weight in layer.weights)
    return {"head": head, "weights": sums}


class ExportedFusion:
    """Runs the fusion that `export_fusion` wrote.

    OpenVINO runs it if it is installed, otherwise ONNX Runtime does.

    Args:
        folder: path of the folder.
        retrieval: the `BridgeTowerRetrieval` whose fusion it is.
        precision: `"float32"`, or `"bfloat16"` with OpenVINO. Products that
            were exported in int8 remain so.

    Call arguments:
        inputs: dict of arrays, as `BridgeTowerRetrieval.score_states`
            describes it.

    Returns:
        float32 array `(pairs, outputs)`: the logits of the head that answers.

    Raises:
        ValueError: a folder of another model or without a fusion, or an
            unknown precision.
        ImportError: no program that runs it is installed.
    """

    def __init__(self, folder, retrieval, precision="float32"):
        folder = pathlib.Path(folder)
        identity, file = _identity(retrieval), folder / IDENTITY
        if not file.is_file() or read_json(file) != identity:
            raise ValueError(
                "`fusion` must be a folder that `export_fusion` wrote for "
                f"this model. Received: fusion={str(folder)!r}"
            )
        self._output = f"{identity['head']}_logits"
        found = importlib.util.find_spec("openvino") or precision != "float32"
        runtime = "openvino" if found else "onnxruntime"
        self._run = ExportedModel.program(folder / FILE, runtime, precision)

    def __call__(self, inputs):
        return np.asarray(self._run(inputs)[self._output], "float32")
