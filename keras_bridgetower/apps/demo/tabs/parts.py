"""Parts of several tabs: examples, the choice of a model, events."""

import functools
import html
import json
import pathlib
import typing

from keras_bridgetower.apps.demo import fragments
from keras_bridgetower.apps.demo.inputs import RefusedInput
from keras_bridgetower.apps.demo.inputs import check_picture
from keras_bridgetower.apps.demo.inputs import opened_picture
from keras_bridgetower.apps.demo.inputs import uploaded_path
from keras_bridgetower.presets.table import shipped_with

_PICTURES = pathlib.Path(__file__).parents[1] / "pictures"
# Errors about the input of a visitor, or about a preset.
_EXPECTED = (ValueError, OSError, ImportError)
_FAULT = "This is a bug of the page ({}). See its terminal."
# Seconds for which a message is shown.
_STAYS = 20
# All requests of models share one queue.
_LINE = "models"
# Events by which a visitor changes an input.
_NEW_INPUT = ("input", "upload", "clear", "delete")
# Stores the inputs, so that an answer to old inputs is not shown. An answer
# below the visible part of the page is scrolled into view.
_ASKED = """(...values) => {
  (window.kbAsked ??= {})[%s] = JSON.stringify(values.slice(0, %d));
  return values;
}"""
_ANSWERED = """(...values) => {
  if (window.kbAsked[%s] !== JSON.stringify(values)) return %s;
  const shown = [...document.querySelectorAll(".kb-result")].find(
    (result) => result.getClientRects().length
  );
  shown?.scrollIntoView({ block: "nearest" });
  return %s;
}"""


class Example(typing.NamedTuple):
    """A button that fills in inputs.

    Args:
        label: str, its text.
        values: tuple, one for each component that it fills.
        drawn: str, name of the example picture on it, or None.
    """

    label: str
    values: tuple
    drawn: str | None = None


class Parts:
    """Parts of which tabs are built.

    Args:
        gr: the module `gradio`.
        opened: `DemoModels`.
        shelf: `IndexShelf`.

    Attributes:
        drawn: dict from the name of an example picture, an emoji, to its path.
        local: bool, True if visitors are on this machine and may name presets
            and folders.
    """

    def __init__(self, gr, opened, shelf):
        self.gr, self.opened, self.shelf = gr, opened, shelf
        self.drawn = {p.stem: str(p) for p in sorted(_PICTURES.glob("*.png"))}
        self.local, self.limits = opened.others, opened.limits

    def intro(self, heading, sentence):
        """Add the heading of a tab, and a sentence about it."""
        self.gr.Markdown(f"## {heading}\n{sentence}", elem_classes="kb-intro")

    def picture(self, label="Picture"):
        """Add a box for a picture, which rejects other files at once."""
        gr = self.gr
        self.label(label)
        box = gr.Image(
            label=label,
            show_label=False,
            # This package reads the files.
            type="filepath",
            image_mode=None,
            sources=["upload", "clipboard"],
            height=260,
            buttons=[],
        )
        return self._checked(box, self._without_bad)

    def pictures(self, label, drawn):
        """Add a box for several pictures, with some of the examples."""
        gr = self.gr
        self.label(label)
        box = gr.Gallery(
            [self.drawn[name] for name in drawn],
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
        return self._checked(box, self._without_bad_ones)

    def _checked(self, box, check):
        """Let a function replace what a visitor uploaded into a box."""
        box.upload(check, box, box, show_progress="hidden", **self._event())
        return box

    def result(self, sentence):
        """Add a box for a result, with a sentence until there is one."""
        empty = f'<p class="kb-empty">{sentence}</p>'
        return self.gr.HTML(empty, elem_classes=["kb-plain", "kb-result"])

    def label(self, text):
        """Add a label above a component, whose own would cover its picture."""
        return self.gr.HTML(fragments.label(text), elem_classes="kb-plain")

    def looked(self, label):
        """Add the title and the box of a picture with attention."""
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
        gr = self.gr
        offered = self.opened.offered(verbs)
        info = "Name of a preset, or the path of its folder."
        if not offered:
            info = f"{lacking(verbs)} Type the name of one that can."
        with gr.Accordion("Choose another model", open=not offered):
            return gr.Dropdown(
                offered,
                value=offered[0] if offered else None,
                label="Model",
                info=info if self.local else None,
                allow_custom_value=self.local,
                interactive=True,
            )

    def examples(self, rows):
        """Add buttons that fill in inputs and run, see `answers`.

        Args:
            rows: list of `Example`.

        Returns:
            list of `(button, values)`.
        """
        gr = self.gr
        self.label("Click an example, or use your own:")
        with gr.Row(elem_classes="kb-examples"):
            return [
                (
                    gr.Button(
                        row.label,
                        icon=row.drawn and self.drawn[row.drawn],
                        size="sm",
                    ),
                    row.values,
                )
                for row in rows
            ]

    def answers(
        self,
        triggers,
        examples,
        boxes,
        run,
        given,
        outputs,
        inputs=None,
        shown=None,
    ):
        """Run a function on triggers, and clear its answer at new input.

        Args:
            triggers, run, outputs: as `on`.
            examples: list of `(button, values)`. A click fills in the values
                and runs the function.
            boxes: list of the components that take the values.
            given: list of the components in which new input clears the answer.
            inputs: list of the components that `run` takes, by default
                `given`.
            shown: list of components that show the answer, by default
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
                js=_ASKED % (key, len(given)),
                show_progress_on=outputs[:1],
                **self._event(),
            ).success(
                inputs=given,
                outputs=shown,
                js=_ANSWERED % (key, empty, skip),
            )

    def picture_and_text(self, label, placeholder, action, verbs):
        """Add a column with a picture and a text.

        Args:
            label, placeholder: str, of the text.
            action: str, text of the button.
            verbs: as in `preset`.

        Returns:
            The picture, the text, the button and the choice of a preset.
        """
        with self.gr.Column(min_width=280):
            box = self.picture()
            text = self.gr.Textbox(label=label, placeholder=placeholder)
            button = self.gr.Button(action, variant="primary")
            return box, text, button, self.preset(verbs)

    def picture_examples(self, pairs):
        """Add `examples` of pictures, by name, and a text about each."""
        return self.examples(
            [Example(text, (self.drawn[n], text), n) for n, text in pairs]
        )

    def on(self, triggers, run, inputs, outputs, **kwargs):
        """Run a function on events.

        Args:
            triggers: list of events of components.
            run: callable of the values of `inputs`, as the browser sends
                them. Its errors are shown.
            inputs, outputs: lists of components.
        """
        self.gr.on(
            triggers,
            self.with_errors(run),
            inputs,
            outputs,
            show_progress_on=outputs[:1],
            **self._event(),
            **kwargs,
        )

    def with_errors(self, run):
        """Wrap a function, to show its errors on the page."""
        gr = self.gr

        @functools.wraps(run)
        def with_errors(*values):
            try:
                return run(*values)
            except _EXPECTED as error:
                message = " ".join(str(error).split()) or type(error).__name__
                raise gr.Error(
                    html.escape(message), duration=_STAYS, print_exception=False
                ) from error
            except Exception as error:
                # Gradio prints the traceback in the terminal.
                raise gr.Error(_FAULT.format(type(error).__name__)) from error

        return with_errors

    def image(self, value):
        """Read the picture that a visitor chose."""
        return opened_picture(uploaded_path(value), self.limits)

    def _event(self):
        return {
            # Gradio would decode pictures by Pillow without limits.
            "preprocess": False,
            "api_visibility": "private",
            "concurrency_id": _LINE,
            "concurrency_limit": self.limits.at_once,
        }

    def _without_bad(self, value):
        if value is None:
            return None
        return self.gr.skip() if self._is_good(value) else None

    def _without_bad_ones(self, values):
        good = [v for v in values or [] if self._is_good(v.get("image"))]
        if len(good) == len(values or []):
            return self.gr.skip()
        return [uploaded_path(value["image"]) for value in good]

    def _is_good(self, value):
        try:
            check_picture(uploaded_path(value), self.limits)
        except RefusedInput as error:
            self.gr.Warning(html.escape(str(error)), duration=_STAYS)
            return False
        return True


def lacking(verbs):
    """Return a sentence that names a preset with a verb that none here has."""
    return (
        f"None of the models of this page can {verbs[0].does}; "
        f"{shipped_with(verbs[0].heads)[0]} can."
    )


def _unwrapped(values):
    # Gradio takes a list for several components, and a value for one.
    return list(values) if len(values) > 1 else values[0]
