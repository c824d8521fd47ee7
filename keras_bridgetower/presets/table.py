"""The table of presets that can be opened by name."""

import dataclasses
import difflib
import os


@dataclasses.dataclass(frozen=True)
class Preset:
    """Facts about a preset that are known before it is opened.

    Args:
        name: str, its name in `from_preset`.
        description: str, one sentence.
        knows: str, the pictures and words that it was trained on. On others
            it only guesses.
        parameters: int, number of parameters, heads included.
        image_size: int, side of its images in pixels.
        heads: tuple of str, names of its heads.
        tasks: tuple of str, names of the task classes whose heads it has.
        handle: str, handle of the published preset, or None if it is in the
            package.
        sha256: str, first digits of the SHA-256 of the published weights, in
            hexadecimal.
        folder: str, its folder in the package if that is not its name:
            presets that differ only by their head share one.
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

# The start of the names of the presets that are opened by default.
DEFAULT_FAMILY = "bridgetower_tiny_emoji_"
# Class and heads of a small preset, by the end of its name.
KINDS = {
    "vqa": ("BridgeTowerVQA", "vqa"),
    "contrastive": ("BridgeTowerContrastive", "itc"),
    "retrieval": ("BridgeTowerRetrieval", "itm", "itc"),
    "mlm": ("BridgeTowerMaskedLM", "mlm"),
    "pretrain": ("BridgeTowerPretraining", "mlm", "itm", "itc"),
    "entailment": ("BridgeTowerEntailment", "entailment"),
    "nlvr2": ("BridgeTowerNLVR2", "nlvr2"),
}
# Classes by the heads in the names of published presets.
HEADS = {
    "itm": "BridgeTowerRetrieval",
    "mlm": "BridgeTowerMaskedLM",
    "itc": "BridgeTowerContrastive",
}


def _tiny(
    kind,
    parameters,
    description,
    knows=SHAPES,
    family="bridgetower_tiny_easy_",
    folder=None,
):
    task, *heads = KINDS[kind]
    return Preset(
        f"{family}{kind}",
        description,
        knows,
        parameters,
        64,
        tuple(heads),
        (task,),
        folder=folder,
    )


def _published(name, sha256, parameters, description):
    size, *words = name.split("-")
    heads = tuple(word for word in words if word in HEADS)
    return Preset(
        f"bridgetower_{name.replace('-', '_')}",
        description,
        PHOTOGRAPHS,
        parameters,
        {"base": 288, "large": 294}[size],
        heads,
        tuple(HEADS[head] for head in heads),
        f"hf://BridgeTower/bridgetower-{name}",
        sha256,
    )


# Numbers of parameters and descriptions, by the end of the name.
_EMOJI = {
    "vqa": (3_126_928, "Answers simple questions about emoji; runs offline."),
    "contrastive": (
        3_087_586,
        "Finds emoji by texts: embeds both in one space; runs offline.",
    ),
    "retrieval": (
        3_087_972,
        "Says whether a text fits an emoji; runs offline.",
    ),
    "mlm": (
        3_625_651,
        "Fills blanks in short texts about emoji; runs offline.",
    ),
    "pretrain": (
        3_679_670,
        "Pre-trained on emoji by three objectives; runs offline.",
    ),
}
_SHAPES = {
    "vqa": (846_414, "Trained from scratch on easy-VQA; runs offline."),
    "pretrain": (
        673_021,
        "Pre-trained on captions derived from easy-VQA; runs offline.",
    ),
    "mlm": (698_756, "Fills blanks in captions of easy-VQA's pictures."),
    "retrieval": (
        640_068,
        "Matches and ranks captions and pictures of easy-VQA.",
    ),
    "contrastive": (
        648_066,
        "Embeds captions and pictures of easy-VQA in one space.",
    ),
    "entailment": (682_820, "Judges statements about easy-VQA's pictures."),
    "nlvr2": (681_539, "Compares two of easy-VQA's pictures."),
}
# Those of published presets are of transformers' classes, without tensors that
# no layer uses; before them the digits of the weights' SHA-256.
_PUBLISHED = {
    "base": ("02b01b0a80fab961", 325_754_880, "Base size; no head."),
    "base-itm-mlm": (
        "5754f311cc052519",
        365_003_867,
        "Base size, pre-trained by matching and masked language.",
    ),
    "large-itm-mlm": (
        "1975358bb83638d2",
        916_039_771,
        "Large size, pre-trained by matching and masked language.",
    ),
    "large-itm-mlm-itc": (
        "deecb9697e35f9f7",
        918_138_460,
        "Large size, with a shared space of text, image and both.",
    ),
    "large-itm-mlm-gaudi": (
        "71db1ed29917be01",
        916_039_771,
        "Large size, pre-trained on Gaudi accelerators.",
    ),
}
PRESETS = {
    preset.name: preset
    for preset in (
        *(
            _tiny(kind, *facts, EMOJI, DEFAULT_FAMILY, f"{DEFAULT_FAMILY}vqa")
            for kind, facts in _EMOJI.items()
        ),
        *(_tiny(kind, *facts) for kind, facts in _SHAPES.items()),
        *(_published(name, *facts) for name, facts in _PUBLISHED.items()),
    )
}


def shipped_with(heads):
    """Return the names of presets in the package with one of some heads.

    Presets of `DEFAULT_FAMILY` come first, then the order of the table.

    Args:
        heads: tuple of str.
    """
    names = [
        name
        for name, preset in PRESETS.items()
        if set(heads) & set(preset.heads) and preset.handle is None
    ]
    return sorted(names, key=lambda name: not name.startswith(DEFAULT_FAMILY))


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


def preset_name(preset):
    """Return the name of a preset that holds in every folder and process.

    Args:
        preset: as in `from_preset`, or a `PresetFolder`.
    """
    name = os.fspath(getattr(preset, "root", preset))
    if name in PRESETS or not os.path.exists(name):
        return name
    return os.path.abspath(name)


def sharing(preset):
    """Return the `Preset` of a name that shares a folder, or None.

    Such a folder has the heads of several presets, and was saved as the task
    of one of them.

    Args:
        preset: as in `from_preset`.
    """
    named = PRESETS.get(preset) if isinstance(preset, str) else None
    return named if named and named.folder else None


def named_heads(preset, saved):
    """Return the heads of a folder that belong to a preset.

    Args:
        preset: as `from_preset` takes it.
        saved: dict with the names of all heads of its folder as keys.

    Returns:
        dict, a part of `saved`.
    """
    named = sharing(preset)
    if named is None:
        return saved
    return {name: saved[name] for name in named.heads if name in saved}
