"""BridgeTower vision-language models for Keras 3."""

import lazy_loader

from keras_bridgetower import startup
from keras_bridgetower.version import __version__ as __version__

# Classes are registered with Keras when their modules are imported. The
# command line and the server do so later, when they need them.
if not startup.imports_late():
    with startup.without_log_lines():
        from keras_bridgetower import convert as convert
        from keras_bridgetower import tasks as tasks

# `__init__.pyi` lists the public names, which are imported when first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
