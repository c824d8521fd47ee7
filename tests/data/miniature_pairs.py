"""Small SNLI-VE and NLVR2 in the files of their authors."""

from miniature_pictures import PARTS
from miniature_pictures import pictures
from miniature_pictures import write_lines


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
