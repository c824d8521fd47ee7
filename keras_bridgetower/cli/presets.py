"""The command that lists the presets that have a name."""

import dataclasses

from keras_bridgetower.cli import output
from keras_bridgetower.cli.models import AsJson
from keras_bridgetower.presets.table import PRESETS


def presets(as_json: AsJson = False):
    """List the presets that can be opened by name."""
    rows = [
        (
            preset.name,
            ", ".join(preset.heads) or "none",
            f"{preset.parameters:,}",
            preset.image_size,
            preset.handle or "in the package",
            f"{preset.description} It knows {preset.knows}.",
        )
        for preset in PRESETS.values()
    ]
    columns = ("preset", "heads", "parameters", "image size", "where")
    value = [dataclasses.asdict(preset) for preset in PRESETS.values()]
    output.show(as_json, value, (*columns, "description"), rows)
