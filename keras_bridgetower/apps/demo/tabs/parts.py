"""Parts that tabs share: examples, the choice of a model, events."""

import contextlib
import functools
import html
import json

from keras_bridgetower import first_examples
from keras_bridgetower.apps.demo import fragments
from keras_bridgetower.apps.demo import inputs

# Errors about the input of a visitor, or about a preset.
_EXPECTED = (ValueError, OSError, ImportError)
# Events by which a visitor changes an input.
_NEW_INPUT = ("input", "upload", "clear", "delete")


class Parts:
    """Parts that tabs share.

    Args:
        gr: the module `gradio`.
        models: `DemoModels`.
        shelf: `IndexShelf`.

    Attributes:
        samples: dict, as from `first_examples` of the first preset.
        local: bool, True if visitors are on this machine and may name presets.
    """

    def __init__(self, gr, models, shelf):
        self.gr, self.models, self.shelf = gr, models, shelf
        self.samples = first_examples(next(iter(models.presets), None))
        self.local = models.others

    def intro(self, heading, sentence):
        """Add the heading of a tab, and a sentence about it."""
        self.gr.Markdown(f"## {heading}\n{sentence}", elem_classes="kb-intro")

    def picture(self, label="Picture"):
        self.label(label)
        return self.gr.Image(
            label=label,
            show_label=False,
            # This package reads the files.
            type="filepath",
            image_mode=None,
            sources=["upload", "clipboard"],
            height=260,
            buttons=[],
        )

    def pictures(self, label, paths):
        """Add a box for several pictures, with those of some paths."""
        self.label(label)
        box = self.gr.Gallery(
            list(map(str, paths)),
            label=label,
            show_label=False,
            type="filepath",
            file_types=["image"],
            interactive=True,
            height=None,
            elem_classes="kb-gallery",
            object_fit="contain",
            buttons=[],
        )
        # Gradio adds an upload to the pictures that are there.
        own = functools.partial(inputs.without_examples, examples=box.value)
        box.upload(self.with_errors(own), box, box, **self.event())
        return box

    def result(self, sentence):
        """Add a box for a result, with a sentence until there is one."""
        empty = f'<p class="kb-empty">{sentence}</p>'
        return self.gr.HTML(empty, elem_classes=["kb-plain", "kb-result"])

    def label(self, text):
        """Add a label above a component, whose own would cover its picture."""
        return self.gr.HTML(fragments.label(text), elem_classes="kb-plain")

    def looked(self, label):
        """Add the title and the box of a picture of attention."""
        title = self.label(label)
        return title, self.gr.Image(
            label=label,
            show_label=False,
            type="pil",
            format="png",
            interactive=False,
            height=300,
            buttons=["fullscreen"],
        )

    def preset(self, verbs):
        """Add the choice of a model, closed at first."""
        offered = self.models.offered(verbs)
        info = "Name of a preset, or the path of its folder."
        with self.gr.Accordion("Choose another model", open=not offered):
            return self.gr.Dropdown(
                offered,
                value=offered[0] if offered else None,
                label="Model",
                info=info if self.local else None,
                allow_custom_value=self.local,
                interactive=True,
            )

    def examples(self, rows):
        """Add buttons, a list of `(button, values)` for `answers`.

        Args:
            rows: list of `(label, values, icon)`: the button's text, a tuple
                of a value for each component, and the path of the picture on
                it, or None.
        """
        gr, found = self.gr, []
        self.label("Click an example, or use your own:")
        with gr.Row(elem_classes="kb-examples"):
            for label, values, icon in rows:
                button = gr.Button(label, icon=icon, size="sm")
                found.append((button, values))
        return found

    def answers(
        self,
        triggers,
        examples,
        boxes,
        given,
        run,
        outputs,
        inputs=None,
        shown=None,
    ):
        """Run a function on triggers, and clear its answer at new input.

        Args:
            triggers: list of events of components.
            examples: list of `(button, values)`. A click fills the values into
                `boxes` and runs the function.
            boxes: list of components.
            given: list of components. New input in them clears the answer.
            run: callable of the values of `inputs`, as the browser sends
                them. The page shows its errors.
            outputs: list of components.
            inputs: list of components, by default `given`.
            shown: list of the components with the answer, by default
                `outputs`.
        """
        gr, inputs, shown = self.gr, inputs or given, shown or outputs
        changes = [
            getattr(box, name)
            for box in given
            for name in _NEW_INPUT
            if hasattr(box, name)
        ]
        # When all pictures are removed, Gradio sends only a change event.
        changes += [x.change for x in given if isinstance(x, gr.Gallery)]
        clicks = [button.click for button, _ in examples]
        empty = json.dumps([one.value or None for one in shown])
        gr.on(
            [*triggers, *clicks, *changes],
            fn=None,
            js=f"() => {empty}",
            outputs=shown,
            api_visibility="private",
        )
        # An example fills in its values, then runs the function.
        filled = [
            button.click(
                functools.partial(_unwrapped, values),
                None,
                boxes,
                api_visibility="private",
                show_progress="hidden",
            ).then
            for button, values in examples
        ]
        started = [
            functools.partial(gr.on, triggers, trigger_mode="always_last"),
            *filled,
        ]
        key, skip = shown[0]._id, json.dumps([gr.skip()] * len(shown))
        for start in started:
            start(
                self.with_errors(run),
                inputs,
                outputs,
                js=f"(...values) => kbAsk({key}, {len(given)}, values)",
                show_progress_on=outputs[:1],
                **self.event(),
            ).success(
                inputs=given,
                outputs=shown,
                js=f"(...values) => kbAnswer({key}, values, {empty}, {skip})",
            )

    @contextlib.contextmanager
    def about_picture(self, heading, sentence, examples, label, action, verbs):
        """Add a picture and a text on the left; the context is on the right.

        Args:
            heading, sentence: as in `intro`.
            examples: list of pairs, the path of a picture and a text.
            label: str, label of the text.
            action: str, text of the button.
            verbs: as in `preset`.

        Yields:
            `answers` without its first arguments, and a list of the picture,
            the text and the choice of a preset.
        """
        gr = self.gr
        self.intro(heading, sentence)
        examples = self.examples(
            [(text, (str(path), text), str(path)) for path, text in examples]
        )
        with gr.Row():
            with gr.Column(min_width=280):
                box = self.picture()
                text = gr.Textbox(label=label, placeholder=examples[0][1][1])
                button = gr.Button(action, variant="primary")
                given = [box, text, self.preset(verbs)]
            with gr.Column(min_width=280):
                triggers = [button.click, text.submit]
                yield (
                    functools.partial(
                        self.answers, triggers, examples, given[:2], given
                    ),
                    given,
                )

    def with_errors(self, run):
        """Return a function that shows the errors of `run` on the page."""

        @functools.wraps(run)
        def with_errors(*values):
            try:
                return run(*values)
            except _EXPECTED as error:
                message = " ".join(str(error).split()) or type(error).__name__
                raise self.gr.Error(
                    html.escape(message), duration=20, print_exception=False
                ) from error

        return with_errors

    def image(self, value):
        return inputs.opened_picture(inputs.uploaded_path(value))

    def event(self):
        """Return settings of an event that runs a model."""
        return {
            # Gradio would decode pictures by Pillow without limits.
            "preprocess": False,
            "api_visibility": "private",
            # All requests of models share one queue.
            "concurrency_id": "models",
        }


def _unwrapped(values):
    # Gradio takes a list for several components, and a value for one.
    return list(values) if len(values) > 1 else values[0]
