"""An opened checkpoint of another library, ready to become a preset."""

import dataclasses

from keras_bridgetower.convert import architecture
from keras_bridgetower.convert import transfer
from keras_bridgetower.models import head_table
from keras_bridgetower.presets import registry


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The description of an opened checkpoint, before any weight is read.

    Args:
        tensors: `Tensors`, the weights, read on demand.
        architecture: `Architecture` of the backbone.
        heads: dict from the name of a head to its constructor values.
        rules: list of `Rule` for the backbone and the heads.
        unread: list of names of tensors that the model does not use.
        processors: tuple of tokenizer and image converter; either may be None.
    """

    tensors: object
    architecture: object
    heads: dict
    rules: list
    unread: list
    processors: tuple

    def build(self, **kwargs):
        """Build the backbone and the heads, and load their weights.

        Args:
            **kwargs: `allow_nonfinite` and `progress` of `transfer.load`.

        Returns:
            `(backbone, heads)`: a `BridgeTowerBackbone` and a `HeadSet`.

        Raises:
            ConversionError: tensors do not fit the model.
        """
        backbone = architecture.build(self.architecture, self.tensors.path)
        with head_table.awaiting(self.heads):
            heads = head_table.make_all(self.heads, backbone)
        variables = transfer.variables_of(
            backbone, heads, encoder=backbone.image_encoder
        )
        transfer.load(self.rules, self.tensors, variables, **kwargs)
        backbone.extra = transfer.read_extra(
            self.rules, self.tensors, self.unread
        )
        return backbone, heads

    def save_to_preset(self, folder, **kwargs):
        """Write the checkpoint as a preset folder.

        Args:
            folder: path of a folder that does not exist yet.
            **kwargs: as `build`.
        """

        def save(path):
            backbone, heads = self.build(**kwargs)
            backbone.save_to_preset(path)
            for processor in self.processors:
                if processor is not None:
                    processor.save_to_preset(path)
            if self.heads:
                heads.save(registry.file_of(path, "task.weights.h5"))
                registry.write_json(path, registry.HEADS, self.heads)

        registry.write(folder, save)
