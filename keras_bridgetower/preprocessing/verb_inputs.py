"""Converts the pictures and texts that are passed to a verb to features.

Every verb makes its inputs a list of sources (`Pictures`, `Texts` and others),
checks with `check_numbers` that they belong together, and returns the value of
`one_or_all` for its results.
"""

import functools
import os
from collections import abc

import numpy as np
from keras import ops

from keras_bridgetower.preprocessing import kept_states
from keras_bridgetower.preprocessing.images import SIGNATURE
from keras_bridgetower.preprocessing.images import SINGLE
from keras_bridgetower.preprocessing.texts import checked_texts
from keras_bridgetower.preprocessing.tf_graph import is_string_tensor


def list_pictures(images):
    """Return `(pictures, single)`: a list, and True for one picture alone.

    Args:
        images: one picture, or a list, tuple or array of pictures, as
            `BridgeTowerImageConverter` reads them.
    """
    if isinstance(images, SINGLE):
        return [images], True
    if isinstance(images, (list, tuple)):
        return list(images), False
    if is_string_tensor(images):
        images = pictures_in(images.numpy())
    # Tensors of the backend may live on a GPU.
    elif ops.is_tensor(images):
        images = ops.convert_to_numpy(images)
    array = np.asarray(images)
    # Strings and objects are pictures, numbers are pixels.
    own_axes = 0 if array.dtype.kind in "OSUT" else 3
    if array.ndim <= own_axes:
        return [array.item() if own_axes == 0 else array], True
    return list(array), False


def pictures_in(strings):
    """Convert a string tensor to an array of objects: bytes and `str` paths.

    TensorFlow has one type for both.
    """
    strings = np.asarray(strings, object)
    found = np.empty(strings.shape, object)
    for index, value in np.ndenumerate(strings):
        picture = SIGNATURE.match(value)
        found[index] = value if picture else os.fsdecode(value)
    return found


class Features:
    """A source of precomputed features.

    Args:
        name: str, the argument's name in errors.
        features: dict of arrays.
        single: bool, whether they are of one item, without batch axis.
    """

    def __init__(self, name, features, single=False):
        self.name, self.single = name, single
        self._features = {
            key: np.asarray(x)[None] if single else np.asarray(x)
            for key, x in features.items()
        }
        self.count = len(next(iter(self._features.values())))

    def features(self, start, stop):
        """Return the features of the items `start` to `stop - 1`.

        A single item is repeated.
        """
        if self.single:
            return {
                key: np.broadcast_to(x, (stop - start, *x.shape[1:]))
                for key, x in self._features.items()
            }
        return {key: x[start:stop] for key, x in self._features.items()}


class Texts(Features):
    """A source of the caller's texts.

    Args:
        preprocessor: a `BridgeTowerPreprocessor`.
        texts: a string, or a list or array of strings; or `KeptStates`.
        name: str, the argument's name in errors.
        encode: as `BridgeTowerPreprocessor.features_of`.
    """

    def __init__(self, preprocessor, texts, name="texts", encode=None):
        self.texts = texts
        if isinstance(texts, kept_states.KeptStates):
            self.name, self.single, self.count = name, False, len(texts)
            return
        # NumPy would read these as a single object.
        if isinstance(texts, (abc.Iterator, abc.MappingView, abc.Set)):
            texts = list(texts)
        features = preprocessor.text_features(texts, encode)
        super().__init__(name, features, features["token_ids"].ndim == 1)
        self.texts, _ = checked_texts(texts)

    def features(self, start, stop):
        if isinstance(self.texts, kept_states.KeptStates):
            return kept_states.text_features(self.texts[start:stop].read())
        return super().features(start, stop)


class MaskedTexts(Features):
    """A source of texts that contain `<mask>`.

    Args:
        preprocessor: a `BridgeTowerMaskedLMPreprocessor`.
        texts: as `Texts`.
    """

    def __init__(self, preprocessor, texts):
        texts, single = checked_texts(texts)
        features = {"mask_positions": np.empty((0, 0), "int32")}
        # `check_numbers` rejects an empty list.
        if texts:
            features, _ = preprocessor.text_with_blanks(
                texts[0] if single else texts
            )
            places = features["mask_positions"]
            features["mask_positions"] = _few_widths(places)
        super().__init__("texts", features, single)


class TextPairs(Features):
    """A source of texts, or pairs of texts, for the text tower alone.

    Args:
        preprocessor: a preprocessor of texts alone.
        texts: as `Texts`.
        second_texts: as many texts, or None.
    """

    def __init__(self, preprocessor, texts, second_texts=None):
        x = {"text": texts}
        if second_texts is not None:
            x["second_text"] = second_texts
        features, batched = preprocessor.features_of(x)
        super().__init__("texts", features, not batched)


class Pictures:
    """A source of the caller's pictures, which are read when needed.

    It has the attributes and methods of `Features`.

    Args:
        preprocessor: a `BridgeTowerPreprocessor`.
        images: one picture, or a list or array of pictures; or `KeptStates`.
        name: str, their name in errors.
    """

    def __init__(self, preprocessor, images, name="images"):
        self.name = name
        self._converter = preprocessor.image_converter
        self.images, self.single = images, False
        if not isinstance(images, kept_states.KeptStates):
            self.images, self.single = list_pictures(images)
        self.count = len(self.images)

    def features(self, start, stop):
        """Return features of pictures; a single picture is read once."""
        if isinstance(self.images, kept_states.KeptStates):
            return {"images": self.images[start:stop].read()}
        if not self.single:
            images = self._converter.block(self.images, start, stop)
            return {"images": images}
        return self._only_picture.features(start, stop)

    @functools.cached_property
    def _only_picture(self):
        # The layer's `__call__` would wrap its errors.
        picture = self._converter.call(self.images[0])
        return Features("images", {"images": picture}, single=True)


class PicturePairs(Pictures):
    """A source of pairs of pictures.

    Args:
        preprocessor: a `BridgeTowerPreprocessor`.
        left, right: as `Pictures`; a single one is paired with each other.
        statements: `Texts`, as many as pairs, or one of the two is single.

    Raises:
        ValueError: lists of different lengths.
    """

    def __init__(self, preprocessor, left, right, statements):
        sides = [
            Pictures(preprocessor, left, "left"),
            Pictures(preprocessor, right, "right"),
        ]
        check_numbers([*sides, statements])
        count = max(side.count for side in sides)
        columns = [x.images * (count if x.single else 1) for x in sides]
        pairs = zip(*columns, strict=True)
        super().__init__(preprocessor, list(pairs))
        self.single = all(side.single for side in sides)


def check_order(images, texts, name):
    """Raise if pictures and texts, named `name`, were swapped."""
    if _are_words(images) and _are_pictures(texts):
        raise ValueError(
            f"`images` must come first, then `{name}`: swap the two. "
            f"Received: images={images!r:.100}, {name}={texts!r:.100}"
        )


def check_not_words(images):
    """Raise if texts were passed alone, in place of pictures."""
    if _are_words(images):
        raise ValueError(
            "`images` must be pictures. Embed texts by `embed(texts=...)`. "
            f"Received: images={images!r:.100}"
        )


def _first(values):
    several = isinstance(values, (list, tuple)) and len(values)
    return values[0] if several else values


def _are_words(values):
    """Return True for strings that name no file and have no file extension."""
    first = _first(values)
    if not isinstance(first, str) or os.path.exists(first):
        return False
    return " " in first or len(os.path.splitext(first)[1]) < 2


def _are_pictures(values):
    first = _first(values)
    if isinstance(first, str):
        return os.path.isfile(first)
    return isinstance(first, SINGLE) or np.ndim(first) >= 2


def check_numbers(sources, repeat=True):
    """Reject empty sources, and sources of different numbers of items.

    Args:
        sources: list of `Features` and `Pictures`.
        repeat: bool, whether a single item is used with all others.
    """
    for source in sources:
        if source.count == 0:
            raise ValueError(
                f"`{source.name}` must hold at least one item. "
                f"Received: {source.name}=[]"
            )
    counted = [s for s in sources if not (repeat and s.single)]
    if len({(s.single, s.count) for s in counted}) > 1:
        names = " and ".join(f"`{source.name}`" for source in sources)
        counts = {s.name: "single" if s.single else s.count for s in sources}
        raise ValueError(
            f"{names} must have the same number of items. Received: {counts}"
        )


def one_or_all(results, sources):
    """Return the only result if every source is single, else `results`."""
    return results[0] if all(x.single for x in sources) else results


def _few_widths(places):
    """Pad positions to a power of two, for few compiled shapes."""
    more = (1 << (places.shape[-1] - 1).bit_length()) - places.shape[-1]
    return np.pad(places, [(0, 0)] * (places.ndim - 1) + [(0, more)])
