"""Small data sets in exactly the files of their authors, by their names."""

import csv

import numpy as np
from keras_bridgetower_drawings.training.easy import pictures as easy_vqa
from miniature_pictures import PARTS
from miniature_pictures import pictures
from miniature_pictures import write_json
from miniature_pictures import write_lines

# Karpathy's split of each picture.
KARPATHY = ("train",) * 10 + ("restval",) * 4 + ("val",) * 4 + ("test",) * 6


def sentences(number):
    """Return five captions, the third repeated; the last picture has six."""
    caption = pictures()[number].caption
    texts = [
        f"{caption}.",
        f"there is {caption}.",
        f"{caption}.",
        f"one sees {caption}.",
        f"{caption} and nothing else.",
    ]
    return texts + ["a shape."] * (number == len(KARPATHY) - 1)


def _karpathy(name_of, splits):
    return [
        {
            "filename": name_of(number, split),
            "imgid": number,
            "split": split,
            "sentences": [
                {"raw": text, "imgid": number, "sentid": 100 * number + i}
                for i, text in enumerate(sentences(number))
            ],
        }
        for number, split in enumerate(splits)
    ]


def coco_name(number, split):
    folder = "train2014" if split == "train" else "val2014"
    return f"COCO_{folder}_{number:012d}.jpg"


def coco(folder):
    images = _karpathy(coco_name, KARPATHY)
    for number, row in enumerate(images):
        row["filepath"] = row["filename"].split("_")[1]
        row["cocoid"] = number
        pictures()[number].save(folder / row["filepath"] / row["filename"])
    write_json(folder / "karpathy/dataset_coco.json", {"images": images})
    return folder, {}


def flickr30k(folder):
    splits = [split.replace("restval", "train") for split in KARPATHY]
    images = _karpathy(lambda number, split: f"{1000 + number}.jpg", splits)
    for number, row in enumerate(images):
        path = folder / "flickr30k-images" / row["filename"]
        pictures()[number].save(path)
    write_json(folder / "karpathy/dataset_flickr30k.json", {"images": images})
    return folder, {}


def visual_genome(folder):
    rows = []
    for number, item in enumerate(pictures()):
        side = "VG_100K" if number % 2 else "VG_100K_2"
        item.save(folder / "images" / side / f"{number}.jpg")
        box = {"image_id": number, "x": 1, "y": 2, "width": 30, "height": 20}
        texts = [item.caption, f"{item.colour} shape", item.caption]
        regions = [box | {"phrase": text} for text in texts]
        rows.append({"id": number, "regions": regions})
    # A picture without a description.
    rows.append({"id": 999, "regions": []})
    write_json(folder / "annotations/region_descriptions.json", rows)
    return folder, {}


def cc3m(folder):
    """Every third picture was not downloaded; captions have quotes."""
    (folder / "utils").mkdir(parents=True)
    tables = {
        "train": ("Train_GCC-training.tsv", range(18)),
        "val": ("Validation_GCC-1.1.0-Validation.tsv", range(18, 24)),
    }
    for short, (table, numbers) in tables.items():
        lines, exist = [], []
        for row, number in enumerate(numbers):
            item = pictures()[number]
            lines.append(f'"{item.caption}\thttp://x/{number}.jpg\n')
            if row % 3:
                exist.append(f"/their/disk/{short}_image/{row}.png\n")
                item.save(folder / f"{short}_image/{row}.png", "PNG")
        (folder / "utils" / table).write_text("".join(lines))
        (folder / f"{short}_image_exist.txt").write_text("".join(exist))
    return folder, {}


def sbu(folder):
    """One url is gone; one picture has three captions, two of them equal."""
    urls = [f"http://static.flickr.com/2723/{n}_7b.jpg" for n in range(24)]
    captions = [item.caption for item in pictures()]
    urls += [urls[3], urls[3]]
    captions += [captions[3], "once more"]
    content = {"image_urls": urls, "captions": captions, "user_ids": ["u"] * 26}
    write_json(folder / "sbu-captions-all.json", content)
    for number, item in enumerate(pictures()[:-1]):
        item.save(folder / "SBU" / f"{number}_7b.jpg")
    return folder, {}


def _annotated(folder, name, numbers):
    short = name.split("_")[0] if "_" in name else "train"
    rows = []
    for number in numbers:
        file = f"{number:04d}5678.jpg"
        item = pictures()[number]
        item.save(folder / f"images_{short}" / file[:4] / file)
        rows.append([f"/their/{file[:4]}/{file}", item.caption])
    write_json(folder / name, rows)


def cc3m_annot(folder):
    _annotated(folder, "train_annot.json", range(18))
    _annotated(folder, "val_annot.json", range(18, 24))
    return folder, {}


def sbu_annot(folder):
    _annotated(folder, "annot.json", range(24))
    return folder, {}


def snli_ve(folder):
    """Write files; dev has the misspelled key of the data set's generator."""
    for part, numbers in PARTS.items():
        rows = []
        for number in numbers:
            item = pictures()[number]
            item.save(folder / "flickr30k-images" / f"{number}.jpg")
            image = {"Flickr30K_ID": str(number)}
            if part == "dev":
                image = {"Flikr30kID": f"{number}.jpg"}
            other = "red" if item.colour != "red" else "blue"
            rows += [
                image
                | {"gold_label": label, "sentence1": "", "sentence2": text}
                for text, label in (
                    (f"The shape is {item.colour}. ", "entailment"),
                    (f"The shape is {other}.", "contradiction"),
                    ("The shape is old.", "neutral"),
                )
            ]
        write_lines(folder / "snli_ve" / f"snli_ve_{part}.jsonl", rows)
    return folder, {}


def nlvr2(folder):
    """Write files; left pictures are JPEG, and all are named .png."""
    data = folder / "nlvr2/data"
    for part, numbers in PARTS.items():
        part = {"test": "test1"}.get(part, part)
        rows = []
        for pair in range(0, len(numbers), 2):
            left, right = (pictures()[numbers[pair + i]] for i in (0, 1))
            key = f"{part}-{pair}-1"
            inner, more = folder / part, {}
            if part == "train":
                inner = folder / "images/train" / str(pair % 3)
                more = {"directory": pair % 3}
            left.save(inner / f"{key}-img0.png", "JPEG")
            right.save(inner / f"{key}-img1.png", "PNG")
            statements = (
                ("both shapes have one colour.", left.colour == right.colour),
                (f"the left shape is a {left.shape}.", True),
            )
            rows += [
                {
                    "sentence": text,
                    "label": str(label),
                    "identifier": f"{key}-{i}",
                    "left_url": "http://x",
                    **more,
                }
                for i, (text, label) in enumerate(statements)
            ]
        write_lines(data / f"{part}.json", rows)
        for balance, some in (("balanced", rows[:4]), ("unbalanced", rows)):
            write_lines(data / f"{balance}/{balance}_{part}.json", some)
    return folder, {}


YEARS = {
    "train2014": range(12),
    "val2014": range(12, 18),
    "test2015": range(18, 24),
}


def people(answer):
    """Return ten answers: six expected, two spelled differently, two others."""
    answers = [answer] * 6 + [f"{answer.title()}."] * 2 + ["dont know"] * 2
    return [{"answer": text} for text in answers]


def vqav2(folder):
    for year, numbers in YEARS.items():
        questions, annotations = [], []
        for number in numbers:
            item = pictures()[number]
            item.save(folder / year / f"COCO_{year}_{number:012d}.jpg")
            for i, (question, answer) in enumerate(item.questions):
                ids = {"question_id": 1000 * number + i, "image_id": number}
                questions.append(ids | {"question": question})
                answers = {
                    "multiple_choice_answer": answer,
                    "answers": people(answer),
                }
                annotations.append(ids | answers)
        files = {f"OpenEnded_mscoco_{year}_questions": questions}
        if year == "test2015":
            files["OpenEnded_mscoco_test-dev2015_questions"] = questions[::2]
        else:
            files[f"mscoco_{year}_annotations"] = annotations
        for name, rows in files.items():
            content = {"info": {}, name.rpartition("_")[2]: rows}
            write_json(folder / f"vqav2/v2_{name}.json", content)
    return folder, {}


def vgqa(folder):
    """Write files in which the even pictures claim to be in COCO.

    Of each picture one question is repeated, one has two answers, and one
    has an answer that is no class.
    """
    annotated, genome = folder / "coco", folder / "vg"
    vqav2(annotated)
    coco(annotated)
    rows, data = [], []
    for number, item in enumerate(pictures()):
        side = "VG_100K" if number % 2 else "VG_100K_2"
        item.save(genome / "images" / side / f"{number}.jpg")
        mentioned = [(q, f"{a.title()}.") for q, a in item.questions]
        mentioned += [
            mentioned[0],
            ("Is it nice?", "Yes."),
            ("Is it nice?", "No."),
            ("What is it made of?", "Chalk."),
        ]
        pairs = [
            {"qa_id": 1000 * number + i, "question": q, "answer": a}
            for i, (q, a) in enumerate(mentioned)
        ]
        rows.append({"id": number, "qas": pairs})
        coco_id = None if number % 2 else number
        data.append({"image_id": number, "url": "", "coco_id": coco_id})
    write_json(genome / "annotations/question_answers.json", rows)
    write_json(genome / "image_data.json", data)
    return genome, {"coco": str(annotated)}


COLOURS, SHAPES = [*easy_vqa.COLOURS], [*easy_vqa.SHAPES]


def _cifar(path, numbers, *kinds):
    """Write rows of labels, of each kind, and of pixels by channels."""
    rows = []
    for number in numbers:
        item = pictures()[number]
        labels = [kind.index(getattr(item, name)) for name, kind in kinds]
        pixels = np.asarray(item.image.resize((32, 32))).transpose(2, 0, 1)
        rows.append(bytes(labels) + pixels.tobytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(rows))


def cifar10(folder):
    inner, kind = folder / "cifar-10-batches-bin", ("colour", COLOURS)
    for i in range(5):
        numbers = range(4 * i, 4 * i + 4)
        _cifar(inner / f"data_batch_{i + 1}.bin", numbers, kind)
    _cifar(inner / "test_batch.bin", range(20, 24), kind)
    # As in the published file, an empty line ends it.
    (inner / "batches.meta.txt").write_text("\n".join([*COLOURS, "", ""]))
    return folder, {}


def cifar100(folder):
    inner = folder / "cifar-100-binary"
    # The coarse class comes first.
    kinds = (("shape", SHAPES), ("colour", COLOURS))
    _cifar(inner / "train.bin", range(20), *kinds)
    _cifar(inner / "test.bin", range(20, 24), *kinds)
    (inner / "fine_label_names.txt").write_text("\n".join([*COLOURS, ""]))
    return folder, {}


SENTENCES = ("sentence1", "sentence2")
SHOWN = ("It is red.", "Red it is.")
# By folder: the header of a file with labels, a row, and the columns of test.
GLUE = {
    "CoLA": (None, ("gj04", "1", "", 'It is "red.'), ("sentence",)),
    "SST-2": (("sentence", "label"), ("it is red", "1"), ("sentence",)),
    "MRPC": (
        ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"),
        ("1", "7", "8", *SHOWN),
        ("#1 ID", "#2 ID", "#1 String", "#2 String"),
    ),
    "QQP": (
        ("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),
        ("0", "1", "2", *SHOWN, "0"),
        ("question1", "question2"),
    ),
    "STS-B": (
        ("index", "genre", *SENTENCES, "score"),
        ("0", "news", *SHOWN, "3.8"),
        ("genre", *SENTENCES),
    ),
    "MNLI": (
        ("index", "genre", *SENTENCES, "label1", "gold_label"),
        ("0", "x", *SHOWN, "neutral", "contradiction"),
        ("genre", *SENTENCES),
    ),
    "QNLI": (
        ("index", "question", "sentence", "label"),
        ("0", *SHOWN, "not_entailment"),
        ("question", "sentence"),
    ),
    **{
        name: (("index", *SENTENCES, "label"), ("0", *SHOWN, label), SENTENCES)
        for name, label in (("RTE", "entailment"), ("WNLI", "1"))
    },
}


def glue(folder):
    for name, (header, row, columns) in GLUE.items():
        (folder / name).mkdir(parents=True)
        head = [header] if header else []
        known = dict(zip(header or (), row, strict=bool(header)))
        test = [known.get(column, row[-1]) for column in columns]
        tables = {
            "train": [*head, *[row] * 12],
            "dev": [*head, *[row] * 4],
            "test": [("index", *columns), ("0", *test)],
        }
        if name == "MNLI":
            for part in ("dev", "test"):
                tables[f"{part}_matched"] = tables[part]
                tables[f"{part}_mismatched"] = tables[part]
        for part, rows in tables.items():
            text = "".join("\t".join(cells) + "\n" for cells in rows)
            (folder / name / f"{part}.tsv").write_text(text)
    return folder, {"task_name": "rte"}


def own(folder):
    """Questions about pictures below `images/`, one table for all."""
    with open(folder / "data.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "text", "answer"])
        for number, item in enumerate(pictures()):
            item.save(folder / "images" / f"{number}.jpg")
            name = f"images/{number}.jpg"
            writer.writerows([name, *pair] for pair in item.questions)
    return folder, {}
