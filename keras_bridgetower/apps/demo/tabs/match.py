"""The tab *Match*: a heat map of texts and pictures."""

from keras_bridgetower.apps.demo import fragments
from keras_bridgetower.apps.demo.inputs import checked_lines
from keras_bridgetower.apps.demo.inputs import opened_picture
from keras_bridgetower.apps.demo.inputs import uploaded_paths
from keras_bridgetower.apps.demo.tabs.parts import Example
from keras_bridgetower.presets.verbs import SCORE

TITLE = "Match"
VERBS = (SCORE,)
_PICTURES = ("dog", "sailboat", "strawberry", "umbrella")
_TEXTS = (
    "a drawing of a dog",
    "a sailboat",
    "a strawberry",
    "a picture of an umbrella",
)
_WRONG = ("a penguin", "a guitar")
_EXAMPLES = {
    "One true text for each picture": _TEXTS,
    "Texts that fit none of them": _WRONG,
}
_EACH = (
    "Each pair is judged on its own: several texts can fit a picture, so rows "
    "and columns do not add up to 100 %."
)
_RANKED = (
    "The model ranks the texts of a picture: each column adds up to 100 %."
)


def add(parts):
    """Add the tab's content to the page."""
    gr, limits = parts.gr, parts.limits
    parts.intro(
        "Which text belongs to which picture?",
        "Each cell says how probably a text describes a picture: the stronger "
        "the color, the better they match.",
    )
    pictures = [parts.drawn[name] for name in _PICTURES]
    examples = parts.examples(
        [
            Example(label, (pictures, "\n".join(texts)))
            for label, texts in _EXAMPLES.items()
        ]
    )
    with gr.Row():
        with gr.Column(min_width=280):
            boxes = parts.pictures(
                f"Pictures, at most {limits.pictures}", _PICTURES
            )
        with gr.Column(min_width=280):
            text = gr.Textbox(
                "\n".join(_TEXTS),
                label=f"Texts, one on each line, at most {limits.texts}",
                lines=6,
            )
            button = gr.Button("Match", variant="primary")
            preset = parts.preset(VERBS)
    table = parts.result("The heat map appears here.")

    def run(values, lines, preset):
        texts = checked_lines(lines, limits)
        paths = uploaded_paths(values, limits.pictures)
        images = [opened_picture(path, limits) for path in paths]
        task = parts.opened.open(preset, *VERBS)
        shares = task.match_probabilities(images, texts)
        note = _RANKED if "rank" in task.answering_heads else _EACH
        return fragments.heat_map(texts, images, shares.T, note)

    parts.answers(
        [button.click],
        examples,
        [boxes, text],
        run,
        [boxes, text, preset],
        [table],
    )
