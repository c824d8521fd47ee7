"""The table of presets that can be opened by name."""

import dataclasses
import difflib


@dataclasses.dataclass(frozen=True)
class Preset:
    """Facts about a preset that are known before it is opened.

    Args:
        name: str, its name in `from_preset`.
        description: str, one sentence.
        knows: str, the pictures and words that it was trained on. Of others
            it says something, without a sign that it does not know them.
        parameters: int, number of parameters, heads included.
        image_size: int, side of its images in pixels.
        heads: tuple of str, names of its heads.
        tasks: tuple of str, names of the task classes whose heads it has.
        handle: str, handle of the published preset, or None if it is in the
            package.
        sha256: str, first digits of the SHA-256 of the published weights, in
            hexadecimal.
        folder: str, its folder in the package, where that is another than
            its name: presets that differ by their head alone share one.
    """

    name: str
    description: str
    knows: str
    parameters: int
    image_size: int
    heads: tuple
    tasks: tuple
    handle: str | None = None
    sha256: str | None = None
    folder: str | None = None


SHAPES = (
    "drawings of 64 x 64 pixels with one colored shape, and sentences from "
    "templates about its color, shape, size and place"
)
EMOJI = (
    "drawings of emoji with 64 x 64 pixels, and short English texts about them"
)
PHOTOGRAPHS = (
    "photographs of everyday scenes (COCO, Visual Genome, SBU, Conceptual "
    "Captions) and their English captions"
)

# What the names of the presets begin with that are opened by default.
DEFAULT_FAMILY = "bridgetower_tiny_emoji_"


def _tiny(name, description, parameters, task, *heads):
    return Preset(
        f"bridgetower_tiny_easy_{name}",
        description,
        SHAPES,
        parameters,
        64,
        heads,
        (f"BridgeTower{task}",),
    )


def _emoji(name, description, parameters, task, *heads):
    prefix = "bridgetower_tiny_emoji_"
    return Preset(
        prefix + name,
        description,
        EMOJI,
        parameters,
        64,
        heads,
        (f"BridgeTower{task}",),
        folder=prefix + "vqa",
    )


def _published(name, sha256, description, parameters, image_size, *heads):
    tasks = {
        "itm": "BridgeTowerRetrieval",
        "mlm": "BridgeTowerMaskedLM",
        "itc": "BridgeTowerContrastive",
    }
    return Preset(
        f"bridgetower_{name.replace('-', '_')}",
        description,
        PHOTOGRAPHS,
        parameters,
        image_size,
        heads,
        tuple(tasks[head] for head in heads),
        f"hf://BridgeTower/bridgetower-{name}",
        sha256,
    )


# Numbers of parameters of published presets are those of transformers'
# classes, without tensors that no layer uses.
PRESETS = {
    preset.name: preset
    for preset in (
        _emoji(
            "vqa",
            "Answers simple questions about emoji; runs offline.",
            3_126_928,
            "VQA",
            "vqa",
        ),
        _emoji(
            "contrastive",
            "Finds emoji by texts: embeds both in one space; runs offline.",
            3_087_586,
            "Contrastive",
            "itc",
        ),
        _emoji(
            "retrieval",
            "Says whether a text fits an emoji; runs offline.",
            3_087_972,
            "Retrieval",
            "itm",
            "itc",
        ),
        _emoji(
            "mlm",
            "Fills blanks in short texts about emoji; runs offline.",
            3_625_651,
            "MaskedLM",
            "mlm",
        ),
        _emoji(
            "pretrain",
            "Pre-trained on emoji by three objectives; runs offline.",
            3_679_670,
            "Pretraining",
            "mlm",
            "itm",
            "itc",
        ),
        _tiny(
            "vqa",
            "Trained from scratch on easy-VQA; runs offline.",
            846_414,
            "VQA",
            "vqa",
        ),
        _tiny(
            "pretrain",
            "Pre-trained on captions derived from easy-VQA; runs offline.",
            673_021,
            "Pretraining",
            "mlm",
            "itm",
            "itc",
        ),
        _tiny(
            "mlm",
            "Fills blanks in captions of easy-VQA's pictures.",
            698_756,
            "MaskedLM",
            "mlm",
        ),
        _tiny(
            "retrieval",
            "Matches and ranks captions and pictures of easy-VQA.",
            640_068,
            "Retrieval",
            "itm",
            "itc",
        ),
        _tiny(
            "contrastive",
            "Embeds captions and pictures of easy-VQA in one space.",
            648_066,
            "Contrastive",
            "itc",
        ),
        _tiny(
            "entailment",
            "Judges statements about easy-VQA's pictures.",
            682_820,
            "Entailment",
            "entailment",
        ),
        _tiny(
            "nlvr2",
            "Compares two of easy-VQA's pictures.",
            681_539,
            "NLVR2",
            "nlvr2",
        ),
        _published(
            "base",
            "02b01b0a80fab961",
            "Base size; no head.",
            325_754_880,
            288,
        ),
        _published(
            "base-itm-mlm",
            "5754f311cc052519",
            "Base size, pre-trained by matching and masked language.",
            365_003_867,
            288,
            "itm",
            "mlm",
        ),
        _published(
            "large-itm-mlm",
            "1975358bb83638d2",
            "Large size, pre-trained by matching and masked language.",
            916_039_771,
            294,
            "itm",
            "mlm",
        ),
        _published(
            "large-itm-mlm-itc",
            "deecb9697e35f9f7",
            "Large size, with a shared space of text, image and both.",
            918_138_460,
            294,
            "itm",
            "mlm",
            "itc",
        ),
        _published(
            "large-itm-mlm-gaudi",
            "71db1ed29917be01",
            "Large size, pre-trained on Gaudi accelerators.",
            916_039_771,
            294,
            "itm",
            "mlm",
        ),
    )
}


def default_preset(task):
    """Return the name of the preset that a task opens by default.

    It is of `DEFAULT_FAMILY` if one of that family has the task, else the
    first in the package that has it.

    Args:
        task: str, name of a task class.
    """
    shipped = [
        name
        for name, preset in PRESETS.items()
        if task in preset.tasks and preset.handle is None
    ]
    return min(shipped, key=lambda name: not name.startswith(DEFAULT_FAMILY))


class PresetsOf:
    """Descriptor: the presets of a class, as dict from name to `Preset`."""

    def __get__(self, instance, cls):
        every = cls.__name__ == "BridgeTowerBackbone"
        return {
            name: p
            for name, p in PRESETS.items()
            if every or p.handle or cls.__name__ in p.tasks
        }


def did_you_mean(name):
    """Return a question that names the presets nearest to a typo, or ""."""
    near = difflib.get_close_matches(name, PRESETS, 3, 0.6)
    return f"Did you mean {' or '.join(near)}? " if near else ""


def sharing(preset):
    """The `Preset` of a name that shares a folder with others, or None.

    Such a folder has more heads than the name stands for, and was saved as
    the task of one of its names.

    Args:
        preset: as `from_preset` takes it.
    """
    named = PRESETS.get(preset) if isinstance(preset, str) else None
    return named if named and named.folder else None


def named_heads(preset, saved):
    """Those of a folder's heads that the name of a preset stands for.

    Args:
        preset: as `from_preset` takes it.
        saved: dict by the names of all heads of its folder.

    Returns:
        dict, a part of `saved`.
    """
    named = sharing(preset)
    if named is None:
        return saved
    return {name: saved[name] for name in named.heads if name in saved}
