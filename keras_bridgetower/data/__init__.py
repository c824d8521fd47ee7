"""Data sets: originals to files of records, and records to batches."""

import lazy_loader

# The public names are in `__init__.pyi`. Each is imported on first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
