"""The tab *Match*: a heat map of texts and pictures."""

from keras_bridgetower.apps.demo import fragments
from keras_bridgetower.apps.demo import inputs
from keras_bridgetower.presets.verbs import SCORE

TITLE = "Match"
VERBS = (SCORE,)
_EACH = (
    "Each pair is judged on its own: several texts can fit a picture, so rows "
    "and columns do not add up to 100 %."
)
_RANKED = (
    "The model ranks the texts of a picture: each column adds up to 100 %."
)


def add(parts):
    gr = parts.gr
    parts.intro(
        "Which text belongs to which picture?",
        "Each cell says how probably a text describes a picture: the stronger "
        "the color, the better they match.",
    )
    rows = parts.samples["match"]
    pictures = [str(path) for path, _ in rows if path]
    fitting = "\n".join(text for path, text in rows if path)
    others = "\n".join(text for path, text in rows if not path)
    examples = parts.examples(
        [
            ("One true text for each picture", (pictures, fitting), None),
            ("Texts that fit none of them", (pictures, others), None),
        ]
    )
    with gr.Row():
        with gr.Column(min_width=280):
            boxes = parts.pictures(
                f"Pictures, at most {inputs.PICTURES}", pictures
            )
        with gr.Column(min_width=280):
            text = gr.Textbox(
                fitting,
                label=f"Texts, one on each line, at most {inputs.TEXTS}",
                lines=6,
            )
            button = gr.Button("Match", variant="primary")
            preset = parts.preset(VERBS)
    table = parts.result("The heat map appears here.")

    def run(values, lines, preset):
        texts = inputs.checked_lines(lines)
        paths = inputs.uploaded_paths(values, inputs.PICTURES)
        images = list(map(inputs.opened_picture, paths))
        task = parts.models.open(preset, *VERBS)
        shares = task.match_probabilities(images, texts)
        note = _RANKED if "rank" in task.answering_heads else _EACH
        return fragments.heat_map(texts, images, shares.T, note)

    parts.answers(
        [button.click],
        examples,
        [boxes, text],
        [boxes, text, preset],
        run,
        [table],
    )
