"""Metrics, computed as in the official evaluations."""

import lazy_loader

# `__init__.pyi` lists the public names, which are imported when first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
