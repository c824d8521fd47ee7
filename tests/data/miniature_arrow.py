"""Small Arrow tables with the columns of ViLT, METER and BridgeTower."""

import miniature_captions
from miniature_pictures import PARTS
from miniature_pictures import pictures

from keras_bridgetower.data.datasets import statements


def write(folder, name, rows, types=None):
    import pyarrow as pa

    columns = {key: [row[key] for row in rows] for key in rows[0]}
    arrays = {
        key: pa.array(values, (types or {}).get(key))
        for key, values in columns.items()
    }
    table = pa.table(arrays)
    folder.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as sink:
        with pa.RecordBatchFileWriter(sink, table.schema) as writer:
            writer.write_table(table)


def write_all(folder, tables):
    for name, rows in tables.items():
        write(folder, name, rows)
    return folder, {}


def _captions(numbers, image_id="{}.jpg", split="train"):
    return [
        {
            "image": pictures()[number].encoded(),
            "caption": miniature_captions.sentences(number),
            "image_id": image_id.format(number),
            "split": split,
        }
        for number in numbers
    ]


def coco(folder):
    tables = {}
    for n, split in enumerate(miniature_captions.KARPATHY):
        rows = tables.setdefault(f"coco_caption_karpathy_{split}", [])
        rows += _captions([n], miniature_captions.coco_name(n, split), split)
    return write_all(folder, tables)


def flickr30k(folder):
    parts = {"train": range(14), "val": range(14, 18), "test": range(18, 24)}
    tables = {
        f"f30k_caption_karpathy_{split}": _captions(numbers, split=split)
        for split, numbers in parts.items()
    }
    return write_all(folder, tables)


def visual_genome(folder):
    boxes = {key: [1] * 6 for key in ("width", "height", "x", "y")}
    rows = [row | boxes for row in _captions(range(24), "{}")]
    return write_all(folder, {"vg": rows})


def cc3m(folder):
    """Several files; the column `split` has the name of a folder."""
    name = "conceptual_caption"
    tables = {
        f"{name}_train_0": _captions(range(10), "{}", "train_image"),
        f"{name}_train_1": _captions(range(10, 18), "{}", "train_image"),
        f"{name}_val_0": _captions(range(18, 24), "{}", "val_image"),
    }
    return write_all(folder, tables)


def sbu(folder):
    parts = {"sbu_0": range(12), "sbu_1": range(12, 24)}
    return write_all(folder, {k: _captions(of) for k, of in parts.items()})


ANSWERS = ("no", "yes", "circle", "red")


def questions(number, answered):
    item = pictures()[number]
    pairs = [q for q, a in item.questions if a in ("yes", "no")]
    answers = [a for q, a in item.questions if a in ("yes", "no")]
    return {
        "image": item.encoded(),
        "questions": pairs,
        # Two answers each: the true one and, by three people, "circle".
        "answers": [[a, "circle"] for a in answers] if answered else [],
        "answer_labels": (
            [[ANSWERS.index(a), 2] for a in answers] if answered else []
        ),
        "answer_scores": [[1.0, 0.9] for _ in answers] if answered else [],
        "image_id": number,
        "question_id": [1000 * number + i for i in range(len(pairs))],
        "split": "train",
    }


def vqav2(folder):
    parts = {
        "vqav2_train_fix": range(12),
        "vqav2_val_fix": range(12, 18),
        "vqav2_test": range(18, 24),
    }
    tables = {
        name: [questions(n, name != "vqav2_test") for n in numbers]
        for name, numbers in parts.items()
    }
    return write_all(folder, tables)


def vgqa(folder):
    tables = {}
    for name, numbers in {"train": range(18), "val": range(18, 24)}.items():
        rows = [questions(n, True) for n in numbers]
        tables |= {f"vgqa_{name}": rows, f"vgqa_coco_{name}": rows[:3]}
    return write_all(folder, tables)


def snli_ve_tables(folder):
    label = statements.ENTAILMENT_LABELS.index("entailment")

    def row(item):
        pair = [item.caption, f"The shape is {item.colour}. "]
        sentences = [pair, [pair[0], "It is old."]]
        return {
            "image": item.encoded(),
            "sentences": sentences,
            "labels": [label, 1],
        }

    tables = {
        f"snli_{name}": [row(pictures()[n]) for n in numbers]
        for name, numbers in PARTS.items()
    }
    return write_all(folder, tables)


def nlvr2(folder):
    tables = {}
    for part, numbers in PARTS.items():
        part = {"test": "test1"}.get(part, part)
        rows = [
            {
                "image_0": pictures()[number].encoded("JPEG"),
                "image_1": pictures()[number + 1].encoded("PNG"),
                "questions": ["one is left.", "there are three."],
                "answers": ["True", "False"],
                "identifier": f"{part}-{number - numbers[0]}-0",
            }
            for number in numbers[::2]
        ]
        tables[f"nlvr2_{part}"] = rows
        for balance in ("balanced", "unbalanced"):
            tables[f"nlvr2_{balance}_{part}"] = rows[:2]
    return write_all(folder, tables)
