"""Small Arrow tables with the columns of ViLT, METER and BridgeTower."""

import miniature_captions
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


def _captions(number, image_id, split):
    return {
        "image": pictures()[number].encoded(),
        "caption": miniature_captions.sentences(number),
        "image_id": image_id,
        "split": split,
    }


def coco(folder):
    splits = list(enumerate(miniature_captions.KARPATHY))
    for split in ("train", "restval", "val", "test"):
        rows = [
            _captions(n, miniature_captions.coco_name(n, s), s)
            for n, s in splits
            if s == split
        ]
        write(folder, f"coco_caption_karpathy_{split}", rows)
    return folder, {}


def flickr30k(folder):
    parts = {"train": range(14), "val": range(14, 18), "test": range(18, 24)}
    for split, numbers in parts.items():
        rows = [_captions(n, f"{n}.jpg", split) for n in numbers]
        write(folder, f"f30k_caption_karpathy_{split}", rows)
    return folder, {}


def visual_genome(folder):
    boxes = {key: [1] * 6 for key in ("width", "height", "x", "y")}
    rows = []
    for n in range(24):
        row = _captions(n, str(n), "")
        del row["split"]
        rows.append(row | boxes)
    write(folder, "vg", rows)
    return folder, {}


def cc3m(folder):
    """Several files; the column `split` has the name of a folder."""
    for shard, numbers in enumerate((range(10), range(10, 18))):
        rows = [_captions(n, f"{n}", "train_image") for n in numbers]
        write(folder, f"conceptual_caption_train_{shard}", rows)
    rows = [_captions(n, f"{n}", "val_image") for n in range(18, 24)]
    write(folder, "conceptual_caption_val_0", rows)
    return folder, {}


def sbu(folder):
    for shard, numbers in enumerate((range(12), range(12, 24))):
        rows = [_captions(n, f"{n}.jpg", "train") for n in numbers]
        write(folder, f"sbu_{shard}", rows)
    return folder, {}


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
    for name, numbers in parts.items():
        rows = [questions(n, name != "vqav2_test") for n in numbers]
        write(folder, name, rows)
    return folder, {}


def vgqa(folder):
    for name, numbers in {"train": range(18), "val": range(18, 24)}.items():
        rows = [questions(n, True) for n in numbers]
        write(folder, f"vgqa_{name}", rows)
        write(folder, f"vgqa_coco_{name}", rows[:3])
    return folder, {}


def snli_ve_tables(folder):
    parts = {"train": range(12), "dev": range(12, 18), "test": range(18, 24)}
    for name, numbers in parts.items():
        rows = []
        for n in numbers:
            item = pictures()[n]
            pair = [item.caption, f"The shape is {item.colour}. "]
            label = statements.ENTAILMENT_LABELS.index("entailment")
            row = {"sentences": [pair, [pair[0], "It is old."]]}
            rows.append({"image": item.encoded(), **row, "labels": [label, 1]})
        write(folder, f"snli_{name}", rows)
    return folder, {}


def nlvr2(folder):
    parts = {"train": range(12), "dev": range(12, 18), "test1": range(18, 24)}
    for part, numbers in parts.items():
        rows = []
        for pair in range(0, len(numbers), 2):
            left, right = (pictures()[numbers[pair + i]] for i in (0, 1))
            rows.append(
                {
                    "image_0": left.encoded("JPEG"),
                    "image_1": right.encoded("PNG"),
                    "questions": ["one is left.", "there are three."],
                    "answers": ["True", "False"],
                    "identifier": f"{part}-{pair}-0",
                }
            )
        write(folder, f"nlvr2_{part}", rows)
        for balance in ("balanced", "unbalanced"):
            if part != "train":
                write(folder, f"nlvr2_{balance}_{part}", rows[:2])
    return folder, {}
