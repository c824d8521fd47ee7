"""The tab *Look inside*: the attention of a layer, a head and a word."""

from keras_bridgetower.apps.demo import fragments
from keras_bridgetower.apps.demo import looking
from keras_bridgetower.apps.demo import models
from keras_bridgetower.apps.demo.inputs import checked_text
from keras_bridgetower.checks import is_integer

TITLE = "Look inside"
KINDS = models.LOOK
_EXAMPLES = (
    ("strawberry", "what color is it mostly?"),
    ("owl", "is this a bird?"),
    ("fire_engine", "is it a vehicle?"),
)
# What the choices send for all words and all heads.
_ALL = 0
# Layer of a model whose layers nobody has counted yet.
_HIGHEST = 10_000


def add(parts):
    """Put the tab's content on the page.

    Args:
        parts: `Parts`.
    """
    gr = parts.gr
    parts.intro(
        "See what the model pays attention to",
        "Each word of the text looks at parts of the picture. Choose a word, "
        "a layer and a head: orange shows where it looks.",
    )
    rows = [parts.drawn_example(*example) for example in _EXAMPLES]
    examples = parts.examples(rows)
    with gr.Row():
        box, text, button, preset = parts.picture_and_text(
            "Text", "what color is it mostly?", "Look inside", KINDS
        )
        with gr.Column(min_width=280):
            words = parts.result("The attention appears here.")
            title, looked = parts.looked("Where it looks (orange)")
            word = gr.Radio(_choices(looking.WHOLE), value=_ALL, label="Word")
            with gr.Row():
                layer = gr.Dropdown(_layers(1), value=1, label="Layer")
                head = gr.Dropdown(
                    _choices(looking.EVERY_HEAD), value=_ALL, label="Head"
                )

    def run(value, text, preset, layer, head, word):
        text = checked_text(text, "text", parts.limits)
        asked = layer, _number(head), _number(word, first=0)
        return looking.look(
            parts.opened, parts.image(value), text, preset, *asked
        )

    def start(value, text, preset, *_):
        """Another text has other words: begin with all of them."""
        found = run(value, text, preset, _HIGHEST, _ALL, _ALL)
        return (
            *_shown(found),
            gr.update(choices=_layers(found.layers), value=found.layers),
            gr.update(
                choices=_choices(
                    looking.EVERY_HEAD,
                    [f"head {i + 1}" for i in range(found.heads)],
                ),
                value=_ALL,
            ),
            gr.update(choices=_choices(looking.WHOLE, found.words), value=_ALL),
        )

    def again(*values):
        return _shown(run(*values))

    given = [box, text, preset]
    inputs = [*given, layer, head, word]
    shown = [words, title, looked]
    parts.answers(
        [button.click, text.submit],
        examples,
        [box, text],
        start,
        given,
        [*shown, layer, head, word],
        inputs,
        shown,
    )
    parts.on(
        [layer.input, head.input, word.input],
        again,
        inputs,
        shown,
        trigger_mode="always_last",
    )


def _shown(found):
    """Return the words, the title and the picture of attention."""
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
    """Names with the numbers that the browser sends for them."""
    return [(every, _ALL), *((n, i) for i, n in enumerate(names, 1))]


def _number(sent, first=1):
    """The number of a word or head, from `first`, or None for all."""
    return None if not is_integer(sent) or sent < 1 else sent - 1 + first
