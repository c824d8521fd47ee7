"""The tab *Look inside*: the attention of a layer, a head and a word."""

import types

from keras_bridgetower.analysis import attention_map
from keras_bridgetower.analysis.maps import pair_features
from keras_bridgetower.apps.demo import fragments
from keras_bridgetower.apps.demo.inputs import checked_text
from keras_bridgetower.presets import verbs

TITLE = "Look inside"
# Tasks whose attention can be shown.
VERBS = (
    *(verbs.ANSWER, verbs.SCORE, verbs.FILL, verbs.ENTAIL),
    verbs.EMBED_IMAGES,
)
# Choices for all words, and for all heads.
WHOLE, EVERY_HEAD = "whole text", "all heads"
# The value of these choices.
_ALL = 0


def look(models, image, text, preset, layer, head=_ALL, word=_ALL):
    """Compute the attention of a word over a picture.

    Args:
        models: `DemoModels`.
        image: a picture.
        text: str.
        preset: str.
        layer: int, from 1, the lowest. Too high a number means the last.
        head: int from 1, or 0 for the mean of all.
        word: int from 1, the number of a word, or 0 for the whole text.

    Returns:
        A namespace: numbers of `layers` and `heads`, `words` of the text with
        `weights`, `picture`, a `PIL.Image.Image`, and `shown`, a description.
    """
    task = models.open(preset, *VERBS)
    fusion = task.backbone.fusion
    layer = min(max(int(layer or 1), 1), fusion.num_layers)
    head = head if head in range(fusion.num_heads + 1) else _ALL
    found = attention_map(
        task, image, text, layer - 1, head - 1 if head else None
    )
    words = _whole_words(task, image, text)
    weights, named = found.whole, WHOLE
    if word in range(1, len(words) + 1):
        name, tokens = words[word - 1]
        weights, named = found.word_maps[tokens].mean(0), f"“{name}”"
    by = f"head {head}" if head else EVERY_HEAD
    return types.SimpleNamespace(
        layers=fusion.num_layers,
        heads=fusion.num_heads,
        words=[name for name, _ in words],
        weights=[float(found.word_weights[t].sum()) for _, t in words],
        picture=fragments.overlay(found.pictures[0], weights[0]),
        shown=f"“{text}” · {named} · layer {layer} of {fusion.num_layers}"
        f" · {by}",
    )


def _whole_words(task, image, text):
    """Return the words of a text, each with the numbers of its tokens."""
    features = pair_features(task, image, text)
    # Without the start and end tokens, as in `AttentionMap`.
    ids = features["token_ids"][0][features["padding_mask"][0] == 1][1:-1]
    tokenizer = task.preprocessor.tokenizer
    words, before, after_special = [], "", True
    for number, token in enumerate(ids.tolist()):
        until = tokenizer.detokenize(ids[: number + 1].tolist())
        # A special token, such as a mask, has no text, and is a word.
        special = not tokenizer.detokenize([token])
        if special or after_special or until[len(before) :][:1].isspace():
            words.append([])
        words[-1].append(number)
        before, after_special = until, special
    return [
        (
            tokenizer.detokenize(ids[tokens].tolist()).strip()
            or tokenizer.id_to_token(int(ids[tokens[0]])),
            tokens,
        )
        for tokens in words
    ]


def add(parts):
    gr = parts.gr
    with parts.about_picture(
        "See what the model pays attention to",
        "Each word of the text looks at parts of the picture. Choose a word, "
        "a layer and a head: orange shows where it looks.",
        parts.samples["look"],
        "Text",
        "Look inside",
        VERBS,
    ) as (answers, given):
        words = parts.result("The attention appears here.")
        title, looked = parts.looked("Where it looks (orange)")
        word = gr.Radio(_choices(WHOLE), value=_ALL, label="Word")
        with gr.Row():
            layer = gr.Dropdown(_layers(1), value=1, label="Layer")
            head = gr.Dropdown(_choices(EVERY_HEAD), value=_ALL, label="Head")

    def run(value, text, preset, layer, head, word):
        text, image = checked_text(text, "text"), parts.image(value)
        return look(parts.models, image, text, preset, layer, head, word)

    def start(value, text, preset, *_):
        """Show the last layer, all heads and all words of a new text."""
        # However many layers the model has.
        found = run(value, text, preset, 10_000, _ALL, _ALL)
        heads = [f"head {i + 1}" for i in range(found.heads)]
        return (
            *_shown(found),
            gr.update(choices=_layers(found.layers), value=found.layers),
            gr.update(choices=_choices(EVERY_HEAD, heads), value=_ALL),
            gr.update(choices=_choices(WHOLE, found.words), value=_ALL),
        )

    def again(*values):
        return _shown(run(*values))

    inputs, answer = [*given, layer, head, word], [words, title, looked]
    answers(start, [*answer, layer, head, word], inputs, answer)
    gr.on(
        [layer.input, head.input, word.input],
        parts.with_errors(again),
        inputs,
        answer,
        trigger_mode="always_last",
        show_progress_on=answer[:1],
        **parts.event(),
    )


def _shown(found):
    """Return the HTML of the words, the title and the picture."""
    words = fragments.marked_words(
        "How much each word counts (more orange: more)",
        found.words,
        found.weights,
    )
    title = f"Where it looks (orange): {found.shown}"
    return words, fragments.label(title), found.picture


def _layers(count):
    return [(f"{number} of {count}", number) for number in range(1, count + 1)]


def _choices(every, names=()):
    """Return `(name, number)` for a choice, with 0 for all."""
    return [(every, _ALL), *((n, i) for i, n in enumerate(names, 1))]
