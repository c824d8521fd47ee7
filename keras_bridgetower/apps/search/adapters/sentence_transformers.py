"""Modules with which sentence-transformers runs a matching or embedding task.

Exported folders name these classes, so they stay where they are.
"""

import pathlib

import torch
from sentence_transformers import CrossEncoder
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modality import infer_batch_modality
from sentence_transformers.base.modules import InputModule

from keras_bridgetower import BridgeTowerContrastive
from keras_bridgetower import BridgeTowerReranker
from keras_bridgetower import BridgeTowerRetrieval
from keras_bridgetower.preprocessing.images import decoded

PRESET = "preset"


class TaskModule(InputModule):
    """Abstract: a task as the only module of a model. Keras computes.

    A subclass names its `task_class`, and runs the task in `results`.

    Args:
        task: an instance of `task_class` with a preprocessor.
    """

    modalities = ["text", "image"]

    def __init__(self, task):
        super().__init__()
        # No submodule: PyTorch must not move or cast what Keras computes with.
        object.__setattr__(self, "task", task)
        # `device` is where results are returned.
        self.register_buffer("place", torch.empty(0), persistent=False)

    @property
    def max_seq_length(self):
        """Number of tokens of a text, an int."""
        return self.task.preprocessor.tokenizer.sequence_length

    def preprocess(self, inputs, prompt=None, task=None):
        """Pass rows on: the task reads pictures and texts itself.

        Args:
            inputs: list of rows.
            prompt: None or an empty str.
            task: `"query"`, `"document"` or None, which are read alike.

        Raises:
            ValueError: a prompt.
        """
        if prompt:
            raise ValueError(
                f"`prompt` must be None: put it in the texts. "
                f"Received: prompt={prompt!r}"
            )
        return {"rows": inputs}

    def forward(self, features):
        """Add the results of rows to a dict of features."""
        found = torch.as_tensor(self.results(features["rows"]))
        return {**features, self.output: found.to(self.place)}

    def save(self, output_path, *args, **kwargs):
        """Write the task as a preset in a model's folder."""
        self.task.save_to_preset(pathlib.Path(output_path, PRESET))

    @classmethod
    def load(
        cls,
        model_name_or_path,
        model_kwargs=None,
        processor_kwargs=None,
        config_kwargs=None,
        backend="torch",
        subfolder="",
        trust_remote_code=False,
        **hub,
    ):
        """Open the task of a model's folder.

        Args:
            model_name_or_path: path of the folder, or its name on the hub.
            model_kwargs: dict of arguments of `from_preset`, such as
                `{"dtype": "bfloat16", "sequence_length": 32}`.
            processor_kwargs, config_kwargs: None or empty.
            backend: `"torch"`.
            subfolder, trust_remote_code: not used.
            **hub: where files of the hub come from, as of `load_dir_path`.

        Raises:
            ValueError: other values.
        """
        if processor_kwargs or config_kwargs or backend != "torch":
            raise ValueError(
                "Only `model_kwargs` are read, as arguments of `from_preset`; "
                f"KERAS_BACKEND is what computes. Received: {processor_kwargs=}"
                f", {config_kwargs=}, {backend=}"
            )
        folder = cls.load_dir_path(model_name_or_path, PRESET, **hub)
        return cls(cls.task_class.from_preset(folder, **(model_kwargs or {})))


class MatchingModule(TaskModule):
    """Scores pairs of a text and a picture, as `BridgeTowerReranker`."""

    task_class, output = BridgeTowerRetrieval, "scores"

    def results(self, rows):
        """Return float32 scores `(pairs,)`."""
        return BridgeTowerReranker(self.task, len(rows)).predict(rows)


class EmbeddingModule(TaskModule):
    """Embeds texts, pictures or pairs, as `BridgeTowerContrastive.embed`."""

    task_class, output = BridgeTowerContrastive, "sentence_embedding"

    @property
    def modalities(self):
        """List of the modalities that a row may have."""
        pairs = [("image", "text")] if self.task.ways == "three_way" else []
        return ["text", "image", *pairs]

    def get_embedding_dimension(self):
        """Return the width of an embedding, an int."""
        return self.task.projection_dim

    def results(self, rows):
        """Return float32 embeddings `(rows, projection_dim)`."""
        kind = infer_batch_modality(rows, self.modalities)
        rows = [row if isinstance(row, dict) else {kind: row} for row in rows]
        found = {name: [row[name] for row in rows] for name in rows[0]}
        if "image" in found:
            found["image"] = [
                decoded(image, f"inputs[{i}]")
                for i, image in enumerate(found["image"])
            ]
        return self.task.embed(found.get("image"), found.get("text"), len(rows))


class BridgeTowerCrossEncoder(CrossEncoder):
    """The `CrossEncoder` of sentence-transformers with a matching head.

    Needs `sentence-transformers`, whose `predict`, `rank`, `save_pretrained`
    and evaluators it has.

    Args:
        task: a `BridgeTowerRetrieval` with a preprocessor.

    Example:

    ```python
    evaluator = CrossEncoderRerankingEvaluator([{
        "query": "a cat", "positive": ["cat.jpg"], "negative": ["cup.jpg"]}])
    evaluator(BridgeTowerCrossEncoder.from_preset(
        "bridgetower_large_itm_mlm_itc"))
    ```
    """

    def __init__(self, task):
        super().__init__(
            modules=[MatchingModule(task)], activation_fn=torch.nn.Identity()
        )

    @classmethod
    def from_preset(cls, preset, **kwargs):
        """Create a cross-encoder with the matching head of a preset.

        Args:
            preset, **kwargs: as `BridgeTowerReranker.from_preset`.
        """
        return cls(BridgeTowerReranker.from_preset(preset, **kwargs).task)


def wrap_task(task):
    """Return a task as a model of sentence-transformers.

    Args:
        task: a `BridgeTowerRetrieval` or `BridgeTowerContrastive`, with a
            preprocessor and trained heads.

    Returns:
        `CrossEncoder` or `SentenceTransformer`.

    Raises:
        ValueError: another task.
    """
    if not isinstance(task, (BridgeTowerRetrieval, BridgeTowerContrastive)):
        raise ValueError(
            "`task` must be a BridgeTowerRetrieval or a "
            f"BridgeTowerContrastive. Received: task={task!r}"
        )
    task.needed_preprocessor()
    task.new_heads.check("sentence-transformers", task.answering_heads)
    if isinstance(task, BridgeTowerRetrieval):
        return BridgeTowerCrossEncoder(task)
    return SentenceTransformer(modules=[EmbeddingModule(task)])
