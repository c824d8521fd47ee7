r"""Write the preset folder of the package from a trained and scored run.

    PYTHONPATH=examples:tools python -m emoji_world.release runs/emoji out

Its weights are in half precision. Score it once more with
`emoji_world.score --preset ...`: no score may move by 0.2, or by more than one
text or question.
"""

import argparse
import json
import pathlib

import half_precision

import keras_bridgetower as kbt
from emoji_world.packages import PACKAGES
from emoji_world.training.model import Together
from emoji_world.training.run import WHOLE
from emoji_world.training.train import STAGES
from keras_bridgetower.presets import manifest

NAME = "bridgetower_tiny_emoji_vqa"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("target", type=pathlib.Path)
    settings = parser.parse_args()
    run, folder = settings.run, settings.target / NAME
    tasks = [
        task.from_preset(run / WHOLE)
        for task in (kbt.BridgeTowerVQA, kbt.BridgeTowerPretraining)
    ]
    record = {
        stage: json.loads((run / f"{stage}.json").read_text())
        for stage in STAGES
    }
    record["scores"] = json.loads((run / "scores.json").read_text())
    Together(*tasks).save_to_preset(folder)
    (folder / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    (folder / "README.md").write_text(_page(tasks[0].count_params(), record))
    manifest.write(folder)
    half_precision.store_in_half(folder)
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    print(f"{folder}: {size / 1e6:.2f} MB")


def _page(parameters, record):
    minutes = sum(record[stage]["seconds"] for stage in STAGES) / 60
    backends = ", ".join(
        f"{stage} {record[stage]['backend']}" for stage in STAGES
    )
    seed = record[WHOLE]["seed"]
    tables = {name: _table(rows) for name, rows in record["scores"].items()}
    credits = "\n".join(
        f"* {package.credit} ({package.name} {package.version}): "
        f"{package.licence}"
        for package in PACKAGES.values()
    )
    return f"""# {NAME}

A BridgeTower of {parameters:,} parameters that answers questions about drawings
of emoji, 64 x 64 pixels, and finds them by short English texts. It does not
know photographs: about them it only guesses. The presets
`bridgetower_tiny_emoji_contrastive`, `_retrieval`, `_mlm` and `_pretrain` are
this one, opened by its other heads.

## Search

{tables["search"]}

`noto`, `fluent` and `flat` are styles that training saw, beside four that draw
a part of the emoji; `twemoji` is one that it never saw. A text finds all
drawings of an artist at once; those that look alike count as one. The texts of
*names* say the name in ways that training does not use. *Words never seen* are
keywords that no caption of training holds, *emoji never seen* are left out of
training altogether.

## Free descriptions

{tables["descriptions"]}

The hundred of `examples/emoji_world/descriptions.json`, written without a look
at names and keywords. BM25 and MiniLM read names and keywords in place of
pictures.

## Questions

{tables["vqa"]}

*Blind* is the commonest answer to the same question in training. Questions are
those of `examples/emoji_world/questions.py`; words such as "color" and "gray"
are spelled in both ways, and both get the same answers.

## Matching

{tables["matching"]}

Of 300 emoji each, named in ways that training does not use, in percent: the
name must fit its own drawing, and neither one drawn at random nor the wrong one
that a search by vectors finds first. *Matched again* orders the first sixteen
that the vectors find by matching.

## Masked words

{tables["masked words"]}

Names of one token behind "a drawing of a", in percent; *blind* with a white
picture. Words that tell nothing, such as "of", were never hidden in training.

## Training

By `examples/emoji_world/training/train.py` in {minutes:.0f} minutes on two busy
cores ({backends}; seed {seed}), stage by stage: the text tower learnt English
from MiniLM (*language*), then captions (*captions*); the image tower learnt
where the captions of a drawing lie (*glances*, *pictures*); the text tower
learnt to find the drawings (*meeting*); the fusion learnt questions, matching,
masked words and the space, with the towers frozen (*fusion*). These weights
were asked about a "colour" alone until then. Last, both spellings got the same
embeddings, and the fusion went on with questions and captions in both
(*spelling*). No epoch was chosen: the last one stands. The weights are stored
in half precision, which moves no score by 0.2, but those of some 300 texts or
questions by one of them.

## Data and licences

{credits}
"""


def _table(rows):
    columns = list(dict.fromkeys(c for row in rows.values() for c in row))
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [
        f"| {name} | {' | '.join(str(row.get(c, '')) for c in columns)} |"
        for name, row in rows.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
