"""Applications: command line, server, page, search, batch jobs."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, ["search"])
