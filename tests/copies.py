"""Changes of files in copies of presets and of checkpoints."""

import json

import safetensors.torch


def edit(path, change):
    """Change the values of a JSON file in place."""
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def update(path, level=None, **values):
    """Set values of a JSON file, or of one of its levels."""
    edit(path, lambda file: (file[level] if level else file).update(values))


def tensors(folder):
    """The tensors of a folder of transformers, by name."""
    return safetensors.torch.load_file(folder / "model.safetensors")


def edit_tensors(folder, change):
    """Change the tensors of a folder of transformers in place."""
    state = tensors(folder)
    change(state)
    safetensors.torch.save_file(state, folder / "model.safetensors")
