"""Small SNLI-VE and NLVR2 in the files of their authors."""

from miniature_pictures import pictures
from miniature_pictures import write_lines


def snli_ve(folder):
    """Write files; dev has the misspelled key of the data set's generator."""
    parts = {"train": range(12), "dev": range(12, 18), "test": range(18, 24)}
    for part, numbers in parts.items():
        rows = []
        for number in numbers:
            item = pictures()[number]
            item.save(folder / "flickr30k-images" / f"{number}.jpg")
            other = "red" if item.colour != "red" else "blue"
            for i, (text, label) in enumerate(
                (
                    (f"The shape is {item.colour}. ", "entailment"),
                    (f"The shape is {other}.", "contradiction"),
                    ("The shape is old.", "neutral"),
                )
            ):
                image = (
                    {"Flikr30kID": f"{number}.jpg"}
                    if part == "dev"
                    else {"Flickr30K_ID": str(number)}
                )
                rows.append(
                    image
                    | {
                        "gold_label": label,
                        "sentence1": f"{item.caption}.",
                        "sentence2": text,
                        "pairID": f"{number}.jpg#0r{i}",
                        "captionID": f"{number}.jpg#0",
                        "annotator_labels": [label],
                    }
                )
        write_lines(folder / "snli_ve" / f"snli_ve_{part}.jsonl", rows)
    return folder, {}


def nlvr2(folder):
    """Write files; left pictures are JPEG, and all are named .png."""
    parts = {"train": range(12), "dev": range(12, 18), "test1": range(18, 24)}
    data = folder / "nlvr2/data"
    for part, numbers in parts.items():
        rows = []
        for pair in range(0, len(numbers), 2):
            left, right = (pictures()[numbers[pair + i]] for i in (0, 1))
            directory = pair % 3
            inner = {
                "train": folder / "images/train" / str(directory),
            }.get(part, folder / part)
            key = f"{part}-{pair}-1"
            left.save(inner / f"{key}-img0.png", "JPEG")
            right.save(inner / f"{key}-img1.png", "PNG")
            same = str(left.colour == right.colour)
            for i, (text, label) in enumerate(
                (
                    ("both shapes have one colour.", same),
                    (f"the left shape is a {left.shape}.", "True"),
                )
            ):
                row = {
                    "sentence": text,
                    "label": label,
                    "identifier": f"{key}-{i}",
                    "left_url": "http://x",
                    "right_url": "http://y",
                    "writer": "1",
                    "synset": "shape",
                    "query": "shape0",
                    "validation": {"7": label},
                }
                if part == "train":
                    row["directory"] = directory
                rows.append(row)
        write_lines(data / f"{part}.json", rows)
        if part != "train":
            for balance, some in (("balanced", rows[:4]), ("unbalanced", rows)):
                name = f"{balance}/{balance}_{part}.json"
                write_lines(data / name, some)
    return folder, {}
