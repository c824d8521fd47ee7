"""Tabs for all other verbs, such as those of your own tasks."""

from keras_bridgetower.apps.demo import fragments
from keras_bridgetower.apps.demo.inputs import checked_text
from keras_bridgetower.presets import verbs
from keras_bridgetower.tasks import by_name

# Verbs with tabs of their own.
_OWN_TABS = (
    *(verbs.ANSWER, verbs.SCORE, verbs.FILL),
    *(verbs.EMBED_IMAGES, verbs.EMBED_TEXTS),
)


def other_tabs(models):
    """Return an `OtherTab` for each other verb of the presets of the page."""
    return [
        OtherTab(verb)
        for _, verb in by_name.verbs().values()
        if verb not in _OWN_TABS and models.offered((verb,))
    ]


class OtherTab:
    """A tab with the inputs and results of a `Verb`."""

    def __init__(self, verb):
        self.TITLE = verb.does[:1].upper() + verb.does[1:]
        self.VERBS = (verb,)

    def add(self, parts):
        gr, (verb,) = parts.gr, self.VERBS
        parts.intro(self.TITLE, f"The model's task is `{verb.name}`.")
        with gr.Row():
            with gr.Column(min_width=280):
                boxes = [self._box(parts, column) for column in verb.columns]
                button = gr.Button("Run", variant="primary")
                preset = parts.preset(self.VERBS)
            with gr.Column(min_width=280):
                result = parts.result("The result appears here.")

        def run(*values):
            *values, preset = values
            found = self.ask(parts, preset, values)
            return "".join(
                fragments.result(name, kind, found[name])
                for name, kind in verb.results.items()
            )

        parts.answers(
            [button.click], [], boxes, [*boxes, preset], run, [result]
        )

    def ask(self, parts, preset, values):
        """Run the verb on values from the browser, one for each input."""
        (verb,) = self.VERBS
        columns = {}
        for column, value in zip(verb.columns, values, strict=True):
            if column in verb.optional and not value:
                continue
            if "image" in column:
                columns[column] = [parts.image(value)]
            else:
                columns[column] = [checked_text(value, column)]
        [found] = verb.run(parts.models.open(preset, verb), columns)
        return found

    def _box(self, parts, column):
        label = column.replace("_", " ").capitalize()
        if "image" in column:
            return parts.picture(label)
        return parts.gr.Textbox(label=label)
