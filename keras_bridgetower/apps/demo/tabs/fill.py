"""The tab *Fill the blank*: words for each blank of a sentence."""

from keras_bridgetower.apps.demo import fragments
from keras_bridgetower.apps.demo.inputs import with_blanks
from keras_bridgetower.preprocessing.texts import split_at_masks
from keras_bridgetower.presets.verbs import FILL

TITLE = "Fill the blank"
VERBS = (FILL,)
_WORDS = 5
_SCORES = (
    "The most likely words. With all other words of the vocabulary they add "
    "up to 100 %."
)


def fill(models, image, text, preset):
    """Fill each `<mask>` of a text about a picture.

    Returns:
        For each blank a list of `(word, probability)`, the best first; and
        the parts of the text around the blanks.
    """
    masks, _ = models.open(preset, *VERBS).fill_mask(image, text, top_k=_WORDS)
    words = [
        [(token.strip() or token, share) for token, share in tokens]
        for tokens in masks
    ]
    return words, split_at_masks(text)


def add(parts):
    with parts.about_picture(
        "Fill the blank in a sentence",
        "Write `___` for a missing word. The model finds it by looking at the "
        "picture.",
        parts.samples["fill"],
        "Sentence with ___",
        "Fill the blank",
        VERBS,
    ) as (answers, _):
        result = parts.result("The full sentence appears here.")

    def run(value, sentence, preset):
        sentence = with_blanks(sentence)
        image = parts.image(value)
        words, around = fill(parts.models, image, sentence, preset)
        return fragments.filled(words, around, _SCORES)

    answers(run, [result])
