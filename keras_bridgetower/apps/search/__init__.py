"""Search over a user's own pictures, by a text, a picture, or both."""

import lazy_loader

# What is public stands in `__init__.pyi`, and is imported when it is used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
