"""A recipe: the settings of a run as one value."""

import dataclasses
import difflib

from keras_bridgetower.checks import check_choice
from keras_bridgetower.training.optim.adamw import AdamW
from keras_bridgetower.training.optim.adamw import rows
from keras_bridgetower.training.optim.schedules import WarmupPolynomial

SIZES = ("base", "large", "tiny")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything a run is made of, but the machine.

    Args:
        name: str, its key in `RECIPES`.
        task: str, the part of the class's name after `BridgeTower`.
        source: str, where the numbers stand.
        dataset: str, the data set it was written for.
        size: `"base"`, `"large"` or `"tiny"`: widths and encoders.
        image_size: int, side of the pictures in pixels.
        transform: str, key of the training transform (`data.augment`).
        eval_transform: str, that for evaluation.
        learning_rate: float, peak for both towers.
        head_factor: float, times the rate for the heads.
        fusion_factor: float, times the rate for the cross-modal part.
        weight_decay: float.
        warmup: float, share of the steps, or int, number of steps.
        epochs: int, passes over the data, or None where `steps` counts.
        steps: int, updates, or None where `epochs` counts.
        batch_size: int, rows of an update, over all devices.
        accumulation: int, batches of which an update is made, each of
            `micro_batch_size` rows over all devices.
        text_length: int, tokens of a text with its ends.
        head_scale: float, width of the head over 2D, or None: one Linear.
        head_dropout: float, dropout of what a head of NLVR2 reads.
        projection_dim: int, width of the contrastive space, or None: a task
            without one, or a preset's.
        objective: str or tuple of str, what is learnt where a task has a
            choice, or None.
        bridge: str or None, as `BridgeTowerBackbone` takes it.
        epsilon: float, of the optimizer.
        dropout: float, of the cross-modal layers.
        shortlist: int, candidates of the two-stage ranking, or None.
        new_poolers: bool, whether the poolers of a preset start anew below a
            new head: those that matching has saturated learn slowly.
        note: str, what the row alone does not tell.

    Raises:
        ValueError: sizes, lengths or shares that cannot be, or an update
            that is not made of whole batches.

    Example:

    ```python
    recipe = recipes.get("vqa_base").replace(batch_size=64)
    recipe.differences()  # {"batch_size": (64, 512)}
    ```

    Source: the scripts and `config.py` of BridgeTower's repository.
    """

    name: str
    task: str
    source: str
    dataset: str
    size: str = "base"
    image_size: int = 384
    transform: str = "blip_randaug_wc"
    eval_transform: str = "blip"
    learning_rate: float = 1e-5
    head_factor: float = 5.0
    fusion_factor: float = 5.0
    weight_decay: float = 0.01
    warmup: float | int = 0.1
    epochs: int | None = 10
    steps: int | None = None
    batch_size: int = 512
    accumulation: int = 1
    text_length: int = 50
    head_scale: float | None = None
    head_dropout: float = 0.0
    projection_dim: int | None = None
    objective: str | tuple[str, ...] | None = None
    bridge: str | None = "add"
    epsilon: float = 1e-8
    dropout: float = 0.1
    shortlist: int | None = None
    new_poolers: bool = False
    note: str = ""
    # The recipe it was made from by `replace`.
    original: "Recipe | None" = dataclasses.field(
        default=None, repr=False, compare=False
    )

    def __post_init__(self):
        check_choice("size", self.size, SIZES)
        length = "epochs" if self.steps is None else "steps"
        sizes = ("image_size", "batch_size", "accumulation", "text_length")
        for name in (*sizes, length):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"`{name}` of a recipe must be a positive integer, and "
                    "one of `epochs` and `steps` be given. Received: "
                    f"{name}={value!r}"
                )
        if self.batch_size % self.accumulation:
            raise ValueError(
                "`accumulation` of a recipe must divide its `batch_size`; 1 "
                "always does. Received: "
                f"accumulation={self.accumulation}, "
                f"batch_size={self.batch_size}"
            )
        share = isinstance(self.warmup, float)
        if self.warmup < 0 or share and self.warmup >= 1:
            raise ValueError(
                "`warmup` of a recipe must be a share of the steps, a float "
                "from 0 to below 1, or a number of steps, an int from 0. "
                f"Received: warmup={self.warmup!r}"
            )

    @property
    def micro_batch_size(self):
        """Rows of a batch, of which `accumulation` make an update."""
        return self.batch_size // self.accumulation

    def replace(self, **changes):
        """The recipe with other values.

        Raises:
            ValueError: a field that does not exist; it names the nearest.
        """
        for name in changes:
            if name not in _FIELDS:
                raise ValueError(unknown("field of a recipe", name, _FIELDS))
        original = self.original or self
        return dataclasses.replace(self, original=original, **changes)

    def tiny(self):
        """The same run in miniature, for easy-VQA on a laptop.

        Sizes change, and with them the base rate: a narrow model learns
        nothing at that of a wide one. The factors of the rows stay, and the
        shortlist still leaves most of the few pictures out. At that
        rate matching saturates the poolers: a new classifier gets new ones.
        """
        return self.replace(
            size="tiny",
            dataset="easy_vqa",
            image_size=64,
            text_length=16,
            batch_size=64,
            accumulation=1,
            shortlist=self.shortlist and 16,
            learning_rate=2e-4,
            epochs=None,
            steps=300,
            new_poolers=self.head_scale is not None,
        )

    def total_steps(self, samples):
        """Updates of the whole run on a number of training samples.

        As in the scripts, a last batch that is not full counts for an epoch,
        and what is left of an update after the last epoch does not.

        Raises:
            ValueError: there are fewer than one batch.
        """
        if self.steps is not None:
            return self.steps
        if samples < self.batch_size:
            raise ValueError(
                "`samples` must be one batch at least. Replace the recipe's "
                f"`batch_size`. Received: samples={samples}, "
                f"batch_size={self.batch_size}"
            )
        batches = -(-samples // self.micro_batch_size)
        return self.epochs * batches // self.accumulation

    def optimizer(self, total_steps, **kwargs):
        """The `AdamW` of the run, with rows, warm-up, decay and accumulation.

        Args:
            total_steps: int, updates of the whole run.
            **kwargs: as `AdamW`, such as `global_clipnorm`.
        """
        if self.accumulation > 1:
            kwargs["gradient_accumulation_steps"] = self.accumulation
        return AdamW(
            WarmupPolynomial(self.learning_rate, total_steps, self.warmup),
            rows(fusion=self.fusion_factor, head=self.head_factor),
            weight_decay=self.weight_decay,
            epsilon=self.epsilon,
            **kwargs,
        )

    def differences(self):
        """Where this differs from the recipe that it was made from.

        Returns:
            dict from field to `(value here, value there)`.
        """
        original = self.original or self
        pairs = {
            name: (getattr(self, name), getattr(original, name))
            for name in _FIELDS
        }
        return {name: two for name, two in pairs.items() if two[0] != two[1]}

    def __str__(self):
        lines = [f"{self.name} ({self.source})"]
        changed = self.differences()
        for name in _FIELDS[3:]:
            value = getattr(self, name)
            if name in changed:
                lines.append(f"  {name}: {value}   [paper: {changed[name][1]}]")
            elif value not in (None, ""):
                lines.append(f"  {name}: {value}")
        return "\n".join(lines)


# All but where it came from.
_FIELDS = [field.name for field in dataclasses.fields(Recipe)[:-1]]


def unknown(what, name, known):
    """The text of an error that names the nearest of what is known."""
    nearest = difflib.get_close_matches(name, known, 1, cutoff=0)[0]
    return (
        f"There is no {what} {name!r}; the nearest is {nearest!r}. Allowed: "
        f"{', '.join(known)}. Received: {name!r}"
    )
