"""Runs an exported model without Keras: from pictures and texts to outputs.

`export` copies this file, as `run.py`, into the folder of an ONNX or OpenVINO
model. It imports nothing of this package and needs numpy, pillow, tokenizers,
and onnxruntime or openvino:

    python run.py photo.png "what color is the shape?"
"""

import argparse
import json
import pathlib

import numpy as np
import tokenizers
from PIL import Image
from PIL import ImageOps


class ExportedModel:
    """An exported folder: `ExportedModel("folder")(pictures, texts)`.

    Args:
        folder: path of the folder.

    Call arguments:
        pictures: list of paths of 8-bit pictures; for a task that compares
            two pictures, list of pairs of paths.
        texts: list of str, as many.

    Returns:
        dict of arrays: the outputs by name.
    """

    def __init__(self, folder):
        folder = pathlib.Path(folder)
        saved = json.loads((folder / "preprocessor.json").read_text())["config"]
        self.features = saved["features"]
        described = json.loads((folder / "export.json").read_text())
        self.names = described["class_names"]
        self.image = (saved.get("image_converter") or {}).get("config")
        if saved.get("tokenizer"):
            self.text = saved["tokenizer"]["config"]
            self.engine, self.special = _tokenizer(
                folder / "assets" / "tokenizer", self.text
            )
        (file,) = [*folder.glob("*.onnx"), *folder.glob("*.xml")]
        self.run = opened(file)

    def __call__(self, pictures, texts):
        made = {}
        if "images" in self.features:
            images = [self._pixels(picture) for picture in pictures]
            made["images"] = np.stack(images)
        if "token_ids" in self.features:
            made |= self._tokens(texts)
        return self.run({name: made[name] for name in self.features})

    def answer(self, pictures, texts):
        """The best answer, or label, and its logit for each text."""
        (logits,) = self(pictures, texts).values()
        best = logits.argmax(axis=-1)
        rows = zip(logits, best, strict=True)
        return [(self.names[i], float(row[i])) for row, i in rows]

    def _pixels(self, picture):
        if isinstance(picture, (list, tuple)):
            return np.stack([self._pixels(one) for one in picture])
        values = np.asarray(_square(_opened(picture), self.image))
        values = values.astype("float32") / np.float32(255)
        mean, std = (np.float32(self.image[name]) for name in ("mean", "std"))
        return (values - mean) / std

    def _tokens(self, texts):
        _check(texts)
        start, pad, end = self.special
        ids = np.full((len(texts), self.text["sequence_length"]), pad, "int32")
        for row, text in zip(ids, texts, strict=True):
            found = self.engine.encode(text, add_special_tokens=False).ids
            found = [start, *found[: len(row) - 2], end]
            row[: len(found)] = found
        mask = (ids != pad).astype("int32")
        return {
            "token_ids": ids,
            "padding_mask": mask,
            "segment_ids": np.zeros_like(ids),
        }


def _check(texts):
    """Refuse texts that the task refuses, in its words."""
    for i, text in enumerate(texts):
        if text.strip() and "\0" not in text:
            continue
        problem = "contain NUL characters" if text.strip() else "be empty"
        raise ValueError(
            f"`text` must not {problem}. Received: text[{i}]={text!r:.200}"
        )


def opened(file, threads=0):
    """Open a file by ONNX Runtime if it is `.onnx`, by OpenVINO if `.xml`.

    Args:
        file: path of the file.
        threads: int, how many threads compute; with 0 the runtime chooses.

    Returns:
        A function from a dict of arrays to the dict of the outputs.
    """
    if pathlib.Path(file).suffix == ".onnx":
        return _by_onnxruntime(file, threads)
    return by_openvino(file, threads)


def _by_onnxruntime(file, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options)
    names = [output.name for output in session.get_outputs()]
    return lambda x: dict(zip(names, session.run(None, x), strict=True))


def by_openvino(file, threads=0, precision="f32"):
    """As `opened`, by OpenVINO, which also reads `.onnx`.

    Args:
        file, threads: as of `opened`.
        precision: str, `"f32"` or `"bf16"`, in which it computes. Left alone,
            it takes bfloat16 on new processors.
    """
    import openvino

    values = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
    }
    model = openvino.Core().compile_model(file, "CPU", values)
    return lambda x: {
        output.any_name: value for output, value in model(x).items()
    }


def _tokenizer(folder, config):
    """The tokenizer, and the ids of start, padding and end."""
    if (folder / "merges.txt").exists():
        engine = tokenizers.Tokenizer(
            tokenizers.models.BPE.from_file(
                str(folder / "vocabulary.json"),
                str(folder / "merges.txt"),
                unk_token="<unk>",
            )
        )
        engine.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
            add_prefix_space=False
        )
        special = ("<s>", "<pad>", "</s>")
    else:
        words = (folder / "vocabulary.txt").read_text("utf-8").split("\n")[:-1]
        engine = tokenizers.Tokenizer(
            tokenizers.models.WordPiece(
                {word: i for i, word in enumerate(words)}, unk_token="[UNK]"
            )
        )
        engine.normalizer = tokenizers.normalizers.BertNormalizer(
            lowercase=config["lowercase"]
        )
        engine.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
        special = ("[CLS]", "[PAD]", "[SEP]")
    return engine, [engine.token_to_id(token) for token in special]


def _opened(path):
    """A picture turned upright, in RGB, over white where transparent."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _square(image, config):
    """Resize a picture by the mode of the preset, and cut the square."""
    side, mode = config["image_size"], config["mode"]
    short, size = min(image.size), [side, side]
    if mode == "crop":
        size = [
            int(side if n == short else side * n / short) for n in image.size
        ]
    if mode == "hf":
        size = [side if n == short else side / short * n for n in image.size]
        limit = int(1333 / 800 * side)
        if max(size) > limit:
            size = [limit / max(size) * n for n in size]
        step = config["size_divisor"]
        size = [int(n + 0.5) // step * step for n in size]
    # The centre; what lies outside of the picture becomes black.
    left, top = (
        (n - side) // 2 if mode == "hf" else round((n - side) / 2) for n in size
    )
    resized = image.resize(tuple(size), Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + side, top + side))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("picture", nargs="+")
    parser.add_argument("text")
    given = parser.parse_args()
    pictures = given.picture[0] if len(given.picture) == 1 else given.picture
    model = ExportedModel(pathlib.Path(__file__).parent)
    if model.names:
        print(json.dumps(model.answer([pictures], [given.text])[0]))
    else:
        outputs = model([pictures], [given.text])
        print(json.dumps({k: v[0].tolist() for k, v in outputs.items()}))
