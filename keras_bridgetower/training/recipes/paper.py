"""`Recipe`, all settings of a training run, and the table of the authors'."""

import dataclasses
import pathlib

from keras_bridgetower.checks import check_choice
from keras_bridgetower.checks import check_count
from keras_bridgetower.files import read_json
from keras_bridgetower.training.optim.adamw import AdamW
from keras_bridgetower.training.optim.adamw import WarmupPolynomial
from keras_bridgetower.training.optim.adamw import rows

SIZES = ("base", "large", "tiny")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All settings of a training run, except the devices.

    Args:
        name: str, its key in `RECIPES`.
        task: str, the name of the task class without `BridgeTower`.
        source: str, script or repository of the numbers.
        dataset: str, the data set of the run.
        size: `"base"`, `"large"` or `"tiny"`: widths and encoders.
        image_size: int, side of the pictures in pixels.
        transform: str, name of the training transform (`data.augment`).
        eval_transform: str, name of the transform for evaluation.
        learning_rate: float, peak for both towers.
        head_factor: float, multiplies the rate for the heads.
        fusion_factor: float, multiplies the rate for the cross-modal part.
        weight_decay: float.
        warmup: float, share of the steps, or int, number of steps.
        epochs: int, passes over the data, or None if `steps` is given.
        steps: int, number of updates, or None if `epochs` is given.
        batch_size: int, samples of an update, over all devices.
        accumulation: int, number of batches of an update, whose gradients are
            accumulated. Each has `micro_batch_size` samples.
        text_length: int, tokens of a text, with its start and end tokens.
        head_scale: float, hidden width of the head divided by 2D, or None for
            a head that is one Linear.
        head_dropout: float, dropout before the head of NLVR2.
        projection_dim: int, width of the contrastive space, or None if the
            task has none or a preset defines it.
        objective: str or tuple of str, the objective if the task has several,
            or None.
        bridge: str or None, as in `BridgeTowerBackbone`.
        epsilon: float, epsilon of the optimizer.
        dropout: float, dropout of the cross-modal layers.
        shortlist: int, candidates of the two-stage ranking, or None.
        new_poolers: bool. If True, the poolers below a new head are newly
            initialized. Poolers that matching has saturated learn slowly.
        dtype: str, dtype policy of the model, such as `"mixed_bfloat16"`, or
            None for that of the preset or of the encoders.
        checkpoint_activations: bool, whether activations are computed again
            in the backward pass, to save memory.
        note: str, a remark.

    Raises:
        ValueError: sizes or lengths that are not positive integers, or an
            `accumulation` that does not divide `batch_size`.

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
    dtype: str | None = None
    checkpoint_activations: bool = False
    note: str = ""
    # The recipe from which `replace` made this one.
    original: "Recipe | None" = dataclasses.field(
        default=None, repr=False, compare=False
    )

    def __post_init__(self):
        check_choice("size", self.size, SIZES)
        for name in ("new_poolers", "checkpoint_activations"):
            check_choice(name, getattr(self, name), [False, True])
        length = "epochs" if self.steps is None else "steps"
        sizes = ("image_size", "batch_size", "accumulation", "text_length")
        for name in (*sizes, length):
            value = getattr(self, name)
            check_count(name, value)
            object.__setattr__(self, name, int(value))
        if self.batch_size % self.accumulation:
            raise ValueError(
                "`accumulation` of a recipe must divide its `batch_size`, "
                f"{self.batch_size}. Received: accumulation={self.accumulation}"
            )

    @property
    def micro_batch_size(self):
        """Return the samples of a batch, `batch_size / accumulation`."""
        return self.batch_size // self.accumulation

    def replace(self, **changes):
        """Return a copy of the recipe with some values changed.

        Raises:
            ValueError: an unknown field.
        """
        for name in changes:
            check_choice("field", name, _FIELDS)
        original = self.original or self
        return dataclasses.replace(self, original=original, **changes)

    def tiny(self):
        """Return the same run in miniature, for easy-VQA on a laptop.

        The sizes are smaller and the learning rate is larger, since a narrow
        model learns nothing at the rate of a wide one. The factors of the rate
        do not change. The shortlist is still much smaller than the number of
        pictures. At the larger rate matching saturates the poolers, so a new
        classifier gets new ones.
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
        """Return the number of updates of the whole run.

        As in the scripts, an incomplete batch at the end of an epoch counts,
        and an incomplete update after the last epoch does not.

        Args:
            samples: int, number of training samples.

        Raises:
            ValueError: there are fewer samples than one batch.
        """
        if self.steps is not None:
            return self.steps
        if samples < self.batch_size:
            raise ValueError(
                f"`samples` must be at least `batch_size`, {self.batch_size}; "
                f"replace that of the recipe. Received: samples={samples}"
            )
        batches = -(-samples // self.micro_batch_size)
        return self.epochs * batches // self.accumulation

    def optimizer(self, total_steps, **kwargs):
        """Return the `AdamW` of the run.

        Args:
            total_steps: int, number of updates of the whole run.
            **kwargs: as in `AdamW`, such as `global_clipnorm`.

        Raises:
            ValueError: another accumulation than the recipe's, on which
                batches and number of updates depend.
        """
        own = self.accumulation if self.accumulation > 1 else None
        accumulation = kwargs.setdefault("gradient_accumulation_steps", own)
        if accumulation != own:
            raise ValueError(
                "`gradient_accumulation_steps` must be the recipe's; use "
                f"`recipe.replace(accumulation={accumulation})`. Received: "
                f"gradient_accumulation_steps={accumulation!r}"
            )
        return AdamW(
            WarmupPolynomial(self.learning_rate, total_steps, self.warmup),
            rows(fusion=self.fusion_factor, head=self.head_factor),
            weight_decay=self.weight_decay,
            epsilon=self.epsilon,
            **kwargs,
        )

    def differences(self):
        """Return the fields that `replace` has changed.

        Returns:
            dict from field to `(value, original value)`.
        """
        original = self.original or self
        return {
            name: (getattr(self, name), getattr(original, name))
            for name in _FIELDS
            if getattr(self, name) != getattr(original, name)
        }

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


# All fields but `original`.
_FIELDS = [field.name for field in dataclasses.fields(Recipe)[:-1]]


def get(name):
    """Return a recipe by its name.

    Args:
        name: str, a key of `RECIPES`.

    Raises:
        ValueError: the name is unknown.

    Example:

    ```python
    get("pretrain_base").batch_size  # 4096
    ```
    """
    check_choice("recipe", name, RECIPES)
    return RECIPES[name]


def _recipe(name, values):
    """Return a recipe that does not mirror pictures whose text names a side.

    The scripts mirror all pictures.
    """
    if isinstance(values.get("objective"), list):
        values["objective"] = tuple(values["objective"])
    recipe = Recipe(name, **values)
    transform = recipe.transform.removesuffix("_official")
    if transform == recipe.transform:
        return recipe
    return recipe.replace(transform=transform)


# What differs from the defaults of `Recipe`, as in the scripts.
_FILE = pathlib.Path(__file__).with_name("recipes.json")
RECIPES = {
    name: _recipe(name, values)
    for name, values in read_json(_FILE, 100_000).items()
}
