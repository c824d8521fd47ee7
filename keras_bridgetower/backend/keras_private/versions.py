"""Names the versions of Keras whose source was checked."""

import re

import keras

FROM, BEFORE = (3, 15, 1), (3, 16, 0)


def is_known():
    """Whether this version of Keras is one that the patches were made for."""
    numbers = re.match(r"\d+(\.\d+)*", keras.__version__).group().split(".")
    # Only the digits count, so a release candidate of 3.16.0 is unknown, too.
    return FROM <= (*map(int, numbers), 0, 0)[:3] < BEFORE


def check_version(feature, instead):
    """Raise if this version of Keras is not known.

    Args:
        feature: str, the feature that needs private parts of Keras.
        instead: str, what a user can do instead.

    Raises:
        RuntimeError: an unknown version.
    """
    if not is_known():
        allowed = (".".join(map(str, v)) for v in (FROM, BEFORE))
        raise RuntimeError(
            "{} reads parts of Keras that may differ in each version. Install "
            "keras>={},<{}, or {}. Received: keras=={}".format(
                feature, *allowed, instead, keras.__version__
            )
        )
