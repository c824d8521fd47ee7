"""All uses of private names of Keras, one topic in each module.

On versions of Keras whose source was not read, they take a slower public way,
or raise an error that names the feature. `docs/design/keras.md` lists the
public hooks that would replace them.
"""

import re

import keras

FROM, BEFORE = (3, 15, 1), (3, 16, 0)


def is_known():
    """Return True for a version of Keras whose private names are known."""
    numbers = re.match(r"\d+(\.\d+)*", keras.__version__).group().split(".")
    # Only digits count, so a release candidate of 3.16.0 is unknown, too.
    return FROM <= (*map(int, numbers), 0, 0)[:3] < BEFORE


def check_version(feature, instead):
    """Raise if this version of Keras is unknown.

    Args:
        feature: str, the feature that uses private names of Keras.
        instead: str, an alternative for the user.

    Raises:
        RuntimeError: the version is unknown.
    """
    if not is_known():
        allowed = (".".join(map(str, v)) for v in (FROM, BEFORE))
        raise RuntimeError(
            "{} reads parts of Keras that may differ in each version. Install "
            "keras>={},<{}, or {}. Received: keras=={}".format(
                feature, *allowed, instead, keras.__version__
            )
        )
