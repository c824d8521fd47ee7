"""Keeps Keras' choice of a kernel for attention off all layers.

On PyTorch Keras asks whether the flash kernel can run, which `torch.compile`
cannot trace. PyTorch takes the fastest kernel by itself.

On a TPU, `ops.dot_product_attention` of Keras 3.15 takes JAX's Splash kernel
if the numbers of queries and keys are multiples of 128. Without a mask it
attends causally, with concrete masks it uses the first row's for all rows, it
never scales by 1/sqrt(width), and it ignores `bias`. For other lengths it logs
an error and falls back. `docs/upstream.md` has a script.

No version of Keras repairs either yet (3.15.1 was read). Once `pyproject.toml`
requires one that does, delete this file and its two uses: in
`models/attention.py` and in `encoders/registry.py`.
"""

import functools
import types

import keras
from keras import ops

from keras_bridgetower.backend.keras_private.layers import layers_in
from keras_bridgetower.backend.keras_private.trainers import with_names


def flash_attention():
    """Return the `flash_attention` of attention: None for Keras' choice.

    It is False on a TPU and on PyTorch.
    """
    backend = keras.config.backend()
    if backend != "jax":
        return False if backend == "torch" else None
    import jax

    # As Keras decides it.
    return False if jax.devices()[0].platform == "tpu" else None


def avoid_splash(layer):
    """On a TPU and on PyTorch, keep Keras' choice off a layer's attention.

    It is set in these objects and in no class. Their configurations do not
    contain it, so a copy needs another call.

    Args:
        layer: a layer or model of any library, with all layers inside.
    """
    if flash_attention() is None:
        return
    for part in (layer, *layers_in(layer)):
        code = getattr(type(part).call, "__code__", None)
        names = getattr(code, "co_names", ())
        if hasattr(part, "_flash_attention"):
            # Keras' constructor turns False into None.
            part._flash_attention = False
        # DINOv3's layer calls the operation without this argument.
        # `torch.compile` breaks there, and fails with another `ops`.
        elif _NAME in names and keras.config.backend() == "jax":
            call = with_names(type(part).call, ops=_plain_ops())
            part.call = types.MethodType(call, part)


_NAME = "dot_product_attention"


def _plain_ops():
    """Return `keras.ops` for one method, with attention that is plain."""
    plain = functools.partial(ops.dot_product_attention, flash_attention=False)
    own = types.SimpleNamespace(**vars(ops) | {_NAME: plain})
    own.nn = own  # `ops` has all names of `ops.nn`.
    return own
