"""Small captioning data sets in the files of their authors."""

from miniature_pictures import pictures
from miniature_pictures import write_json

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
