"""Add the notebooks to the site, as a hook of MkDocs."""

import pathlib

from mkdocs.structure.files import File

NOTEBOOKS = pathlib.Path(__file__).parent.parent / "notebooks"


def on_files(files, config):
    """Called by MkDocs with the files of the site."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        name = f"notebooks/{path.name}"
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files
