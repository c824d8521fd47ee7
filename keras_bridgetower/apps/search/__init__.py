"""Search your own pictures by a text, a picture, or both."""

import lazy_loader

# `__init__.pyi` lists the public names, which are imported on first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
