r"""Write the preset folder of the package from a trained and scored run.

    PYTHONPATH=examples:tools python -m emoji_world.release runs/emoji out

Its weights are in half precision. Score it once more with
`emoji_world.score --preset ...`: no score may move by 0.2.
"""

import argparse
import json
import pathlib
import shutil

import half_precision
from easy_world.training.tiny_training import pack

import keras_bridgetower as kbt
from emoji_world.packages import PACKAGES
from emoji_world.training.train import STAGES

NAME = "bridgetower_tiny_emoji_pretrain"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("target", type=pathlib.Path)
    settings = parser.parse_args()
    run, folder = settings.run, settings.target / NAME
    *_, last = STAGES
    task = kbt.BridgeTowerPretraining.from_preset(run / last)
    record = {
        stage: json.loads((run / f"{stage}.json").read_text())
        for stage in STAGES
    }
    record["scores"] = json.loads((run / "scores.json").read_text())
    shutil.copytree(run / last, folder)
    (folder / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    (folder / "README.md").write_text(_page(task.count_params(), record))
    pack(task.backbone, folder)
    half_precision.store_in_half(folder)
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    print(f"{folder}: {size / 1e6:.2f} MB")


def _page(parameters, record):
    minutes = sum(record[stage]["seconds"] for stage in STAGES) / 60
    backends = ", ".join(
        f"{stage} {record[stage]['backend']}" for stage in STAGES
    )
    seed = record["fusion"]["seed"]
    tables = "\n\n".join(_table(rows) for rows in record["scores"].values())
    credits = "\n".join(
        f"* {package.credit} ({package.name} {package.version}): "
        f"{package.licence}"
        for package in PACKAGES.values()
    )
    return f"""# {NAME}

A BridgeTower of {parameters:,} parameters with heads for masked language,
matching, contrast and questions. It knows drawings of emoji, 64 x 64 pixels,
and short English texts about them. It does not know photographs: of those it
says something too, a guess. The presets `bridgetower_tiny_emoji_vqa`,
`_retrieval`, `_contrastive` and `_mlm` are this one, opened by one head.

{tables}

`noto` and `fluent` are the artists that training saw, `twemoji` is one that it
never saw. A text finds all drawings of an artist at once; those that look alike
count as one. *Words never seen* are keywords that no caption of training
holds, *emoji never seen* are left out of training altogether. The texts of
*names* say the name in ways that training does not use. *Free descriptions*
are the hundred of `examples/emoji_world/descriptions.json`; BM25 and MiniLM
read names and keywords in place of pictures. *Blind* is the commonest answer to
the same question in training.

Trained by `examples/emoji_world/training/train.py` in {minutes:.0f} minutes on
two busy cores ({backends}; seed {seed}): first the text tower learnt from
MiniLM, and the image tower from drawings and MiniLM's vectors of their
captions; then the fusion learnt all tasks at once, with the towers at rest. No
epoch was chosen: the last one stands. The weights are stored in half precision.

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
