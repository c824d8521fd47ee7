"""Run an exported model without Keras: from pictures and texts to outputs.

`export` copies this file, as `run.py`, into the folder of an ONNX or OpenVINO
model. It imports nothing from this package and needs numpy, pillow,
tokenizers, and onnxruntime or openvino:

    python run.py photo.png "what color is the shape?"
"""

import argparse
import functools
import json
import pathlib
import re
import threading

import numpy as np
import tokenizers
from PIL import Image
from PIL import ImageOps

# Option of ONNX Runtime: the folder of a model's external weights.
WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


class ExportedModel:
    """An exported folder: `ExportedModel("folder")(pictures, texts)`.

    Args:
        folder: path of the folder.
        weights: path of the folder that has the model's external weights, if
            that is another one.

    Call arguments:
        pictures: list of paths of 8-bit pictures, or of upright RGB images of
            Pillow; for a task that compares two pictures, list of pairs of
            them. Leave out for a task that reads only texts.
        texts: list of str, one per picture. Leave out for a task that reads
            only pictures.

    Returns:
        dict of arrays: the outputs by name.

    Raises:
        ValueError: a folder without one model, a model that reads other
            inputs, no lists, lists of different lengths, an empty text, or a
            picture without 8 bits in each channel.

    Example:

    ```python
    vqa.export("folder", format="onnx", part="text_tower")
    states = ExportedModel("folder")(texts=["a red circle"])["states"]
    ```
    """

    def __init__(self, folder, weights=None):
        folder = pathlib.Path(folder)
        saved = json.loads((folder / "preprocessor.json").read_text())["config"]
        self.features = saved["features"]
        export = json.loads((folder / "export.json").read_text())
        self.names = export.get("class_names")
        self._rejection = export.get("rejection")
        self.image = (saved.get("image_converter") or {}).get("config")
        if saved.get("tokenizer"):
            self.text = saved["tokenizer"]["config"]
            # Of start, padding and end.
            self.special = export["special_token_ids"]
            engine = folder / "assets" / "tokenizer" / "engine.json"
            self.engine = tokenizers.Tokenizer.from_file(str(engine))
        (file,) = [*folder.glob("*.onnx"), *folder.glob("*.xml")]
        self.run, inputs = load(file, weights)
        others = [names for names in inputs if not names & set(self.features)]
        if others:
            raise ValueError(
                "The model reads what this program does not make, such as "
                f"masks or states of a tower. Received: {others}"
            )
        # A part of a model reads some of them.
        read = set().union(*inputs)
        self.features = [name for name in self.features if name in read]

    @staticmethod
    def program(file, runtime="onnxruntime", precision="float32"):
        """Load one exported file, to run it on features.

        Args:
            file: path of an `.onnx` file, or for OpenVINO of an `.xml` file.
            runtime: `"onnxruntime"` or `"openvino"`.
            precision: `"float32"`, or `"bfloat16"` with OpenVINO.

        Returns:
            Callable from a dict of arrays to a dict of arrays. Several threads
            may call it at once.

        Raises:
            ValueError: another runtime or precision.
            ImportError: the runtime is not installed.

        Example:

        ```python
        vqa.export("fusion.onnx", format="onnx", part="fusion")
        run = ExportedModel.program("fusion.onnx")
        run({"text_states": ..., "image_states": ..., "padding_mask": ...})
        ```
        """
        if (runtime, precision) not in PROGRAMS:
            raise ValueError(
                "`runtime` and `precision` must be one of "
                f"{list(PROGRAMS)}. Received: {(runtime, precision)}"
            )
        run, _ = PROGRAMS[runtime, precision](str(file))
        return run

    def __call__(self, pictures=(), texts=()):
        given = {"pictures": pictures, "texts": texts}
        given = {name: given[name] for name in self.reads}
        counts = {0 if type(x) is str else len(x) for x in given.values()}
        if len(counts) > 1 or 0 in counts:
            raise ValueError(
                f"`{'` and `'.join(given)}` must be lists of one length, with "
                f"at least one entry. Received: {given!r:.200}"
            )
        features = {}
        if "images" in self.features:
            # One picture may be there with many texts.
            made = {id(one): one for one in pictures}
            made = {key: self._pixels(one) for key, one in made.items()}
            features["images"] = np.stack([made[id(one)] for one in pictures])
        if "token_ids" in self.features:
            features |= self._tokens(texts)
        return self.run({name: features[name] for name in self.features})

    @property
    def reads(self):
        """list of `"pictures"`, `"texts"` or both: the inputs of the task."""
        kinds = {"images": "pictures", "token_ids": "texts"}
        return [kinds[name] for name in kinds if name in self.features]

    def answer(self, pictures=(), texts=()):
        """Return the best answer or label, and its logit, for each text."""
        (logits,) = self(pictures, texts).values()
        texts = texts or [""] * len(logits)
        found = [
            (row, ranked(self._rejection, self.names, row, text)[0][0])
            for row, text in zip(logits, texts, strict=True)
        ]
        return [(self.names[i], float(row[i])) for row, i in found]

    def best_answers(self, logits, texts, top_k=1):
        """Return answers for rows of logits, as `BridgeTowerVQA.answer`.

        Args:
            logits: float array `(rows, answers)`.
            texts: list of str, the questions.
            top_k: int, number of answers for each question.

        Returns:
            list of `(answers, known)`: pairs of an answer and its score, the
            best first, and a bool; None for a task without a rule.
        """
        return best_answers(self._rejection, self.names, logits, texts, top_k)

    def is_cut(self, text):
        """Return True if a text has more tokens than the model reads."""
        tokens = self.engine.encode(text, add_special_tokens=False).ids
        return len(tokens) + 2 > self.text["sequence_length"]

    def _pixels(self, picture):
        if isinstance(picture, (list, tuple)):
            return np.stack([self._pixels(one) for one in picture])
        if not isinstance(picture, Image.Image):
            picture = _open(picture)
        values = np.asarray(_square(picture, self.image))
        values = values.astype("float32") / np.float32(255)
        mean, std = (np.float32(self.image[name]) for name in ("mean", "std"))
        return (values - mean) / std

    def _tokens(self, texts):
        start, pad, end = self.special
        ids = np.full((len(texts), self.text["sequence_length"]), pad, "int32")
        mask = np.zeros_like(ids)
        for row, real, text in zip(ids, mask, texts, strict=True):
            if not text.strip() or "\0" in text:
                raise ValueError(
                    "`texts` must not be empty or contain NUL characters. "
                    f"Received: {text!r:.200}"
                )
            tokens = self.engine.encode(text, add_special_tokens=False).ids
            tokens = [start, *tokens[: len(row) - 2], end]
            row[: len(tokens)] = tokens
            real[: len(tokens)] = 1
        return {
            "token_ids": ids,
            "padding_mask": mask,
            "segment_ids": np.zeros_like(ids),
        }


def best_answers(rule, names, logits, texts, top_k=1):
    """Return the best answers and whether they are known, for each question.

    Args:
        rule: dict, the `rejection` of a `BridgeTowerVQA`, or None.
        names: list of str, the answers in the order of the logits.
        logits, texts, top_k: as of `ExportedModel.best_answers`.
    """
    found = []
    for row, text in zip(logits, texts, strict=True):
        order, known = ranked(rule, names, row, text)
        # In float64, the exponential of a score is finite.
        scores = 1 / (1 + np.exp(-row.astype("float64")))
        pairs = [(names[i], float(scores[i])) for i in order[:top_k]]
        found.append((pairs, known))
    return found


def ranked(rule, names, logits, text):
    """Return the numbers of the answers that fit a question, the best first.

    The second result says whether the best one is known, or is None.
    """
    order = np.argsort(-logits, kind="stable").tolist()
    if rule is None:
        return order, None
    # The rule was chosen for these logits.
    logits = logits.astype("float64") * rule.get("temperature", 1.0)
    known = np.logaddexp.reduce(logits) >= rule["threshold"]
    if "questions" in rule:
        sort, share = read_question(text, **rule["questions"])
        named = set(sort["answers"])
        fit = [i for i in order if (names[i] in named) is sort["only"]]
        order = fit or order
        score = 1 / (1 + np.exp(-logits[order[0]]))
        known &= share >= rule["questions"]["share"] and score >= sort["floor"]
    return order, bool(known)


def read_question(text, words, share, skip, sorts):
    """Return the sort of a question, and the share of its words that are known.

    Args:
        text: str.
        words, share, skip, sorts: a table, as in the `rejection` of a task.
    """
    found = re.findall(r"[^\W_]+|,", text.lower())
    phrase = f" ^ {' '.join(found)} "
    for polite in skip:
        phrase = phrase.replace(f" {polite} ", " ")

    def has(some):
        return any(f" {one} " in phrase for one in some)

    sort = next(sort for sort in sorts if all(map(has, sort["has"])))
    found, taught = [w for w in found if w != ","], set(words.split())
    return sort, sum(w in taught for w in found) / max(len(found), 1)


def load(file, weights=None):
    """Load `.onnx` by ONNX Runtime, `.xml` by OpenVINO.

    Args:
        file: path of the file.
        weights: path of the folder with the external weights of an `.onnx`
            file; by default they are beside the file.

    Returns:
        `(run, inputs)`: a callable from a dict of arrays to the dict of the
        outputs, and a list of sets, the names of each input.
    """
    if pathlib.Path(file).suffix != ".onnx":
        return by_openvino(file)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if weights:
        options.add_session_config_entry(WEIGHTS_FOLDER, str(weights))
        # The option has no effect on files.
        file = pathlib.Path(file).read_bytes()
    session = onnxruntime.InferenceSession(file, options)
    names = [output.name for output in session.get_outputs()]
    return (
        lambda x: dict(zip(names, session.run(None, x), strict=True)),
        [{value.name} for value in session.get_inputs()],
    )


def by_openvino(file, precision="f32"):
    """Load a file, `.xml` or `.onnx`, by OpenVINO.

    Args:
        file: path of the file.
        precision: str, precision of computations, `"f32"` or `"bf16"`. By
            default OpenVINO would use bfloat16 on new processors.
    """
    import openvino

    values = {"INFERENCE_PRECISION_HINT": precision}
    model = openvino.Core().compile_model(file, "CPU", values)
    # A request serves one thread at a time.
    requests = threading.local()

    def run(x):
        if not hasattr(requests, "own"):
            requests.own = model.create_infer_request()
        found = requests.own.infer(x).items()
        return {output.any_name: value for output, value in found}

    return run, [value.names for value in model.inputs]


PROGRAMS = {
    ("onnxruntime", "float32"): load,
    ("openvino", "float32"): by_openvino,
    ("openvino", "bfloat16"): functools.partial(by_openvino, precision="bf16"),
}


def _open(path):
    """Open a picture upright, in RGB, over white where transparent."""
    image = ImageOps.exif_transpose(Image.open(path))
    # Pillow would convert nearly all of their values to white.
    if image.mode[0] in "IF":
        raise ValueError(
            "`pictures` must have 8 bits in each channel. Received: "
            f"{str(path)!r} with mode {image.mode}"
        )
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _square(image, config):
    """Resize a picture by the mode of the preset, and crop the square."""
    side, mode = config["image_size"], config["mode"]
    larger = int(side / config.get("crop_pct", 1.0) + 1e-6)
    short, size = min(image.size), [larger, larger]
    if mode in ("crop", "center"):
        size = [
            int(larger if n == short else larger * n / short)
            for n in image.size
        ]
    if mode == "hf":
        size = [
            larger if n == short else larger / short * n for n in image.size
        ]
        limit = int(1333 / 800 * larger)
        if max(size) > limit:
            size = [limit / max(size) * n for n in size]
        step = config["size_divisor"]
        size = [int(n + 0.5) // step * step for n in size]
    # The center crop; outside of the picture it is black.
    left, top = (
        round((n - side) / 2) if mode == "crop" else (n - side) // 2
        for n in size
    )
    resample = Image.Resampling[config.get("resample", "bicubic").upper()]
    resized = image.resize(tuple(size), resample)
    return resized.crop((left, top, left + side, top + side))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="input",
        help="inputs of the task: a picture or two, and then a text",
    )
    arguments = parser.parse_args().inputs
    model = ExportedModel(pathlib.Path(__file__).parent)
    inputs = {}
    if "texts" in model.reads:
        inputs["texts"] = [arguments.pop()]
    if arguments:
        single = len(arguments) == 1
        inputs["pictures"] = arguments if single else [arguments]
    if sorted(inputs) != model.reads:
        parser.error(f"the task reads {' and '.join(model.reads)}")
    if model.names:
        print(json.dumps(model.answer(**inputs)[0]))
    else:
        outputs = model(**inputs)
        print(json.dumps({k: v[0].tolist() for k, v in outputs.items()}))
