"""Chooses how layers compute attention, where Keras does not choose well.

On PyTorch Keras asks whether the flash kernel can run, which `torch.compile`
cannot trace. PyTorch takes the fastest kernel by itself.

On a TPU, `ops.dot_product_attention` of Keras 3.15 takes JAX's Splash kernel
if the numbers of queries and keys are multiples of 128. Without a mask it
attends causally, with concrete masks it uses the first row's for all rows, it
never scales by 1/sqrt(width), and it ignores `bias`. For other lengths it logs
an error and falls back. `docs/upstream.md` has a script. Version 3.15.1 still
does so; `flash_attention` can be left out once `pyproject.toml` requires a
repaired one.

On JAX the backward pass computes the weights of attention again, since kept
ones fill most of the memory (`docs/accelerators.md`). Keras' own layers with
dropout, as RoBERTa's, keep them.
"""

import types

import keras
from keras import ops

from keras_bridgetower.backend.keras_private.layers import layers_in
from keras_bridgetower.backend.keras_private.trainers import with_names


def is_traced(x):
    """Return whether JAX traces a tensor, as in a compiled step."""
    if keras.config.backend() != "jax":
        return False
    import jax

    return isinstance(x, jax.core.Tracer)


def fused_attention(query, key, value, *args, **kwargs):
    """Compute `ops.dot_product_attention` by a kernel that is right.

    Args:
        query, key, value: float tensors `(batch, tokens, heads, width)`.
        *args, **kwargs: as of `ops.dot_product_attention`, but for
            `flash_attention`, which is not read.

    Returns:
        float tensor of the shape of `query`.
    """
    kwargs["flash_attention"] = flash_attention()

    def compute(query, key, value):
        return ops.dot_product_attention(query, key, value, *args, **kwargs)

    if is_traced(query):
        compute = keras.remat(compute)
    return compute(query, key, value)


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


def choose_attention(layer):
    """On JAX and PyTorch, choose the kernel of all attention in a layer.

    It is set in these objects and in no class. Their configurations do not
    contain it, so a copy needs another call.

    Args:
        layer: a layer or model of any library, with all layers inside.
    """
    backend = keras.config.backend()
    for part in (layer, *layers_in(layer)):
        if backend == "torch" and hasattr(part, "_flash_attention"):
            # Keras' constructor turns False into None. With another `ops`,
            # `torch.compile` fails.
            part._flash_attention = False
        for name in _METHODS if backend == "jax" else ():
            method = getattr(type(part), name, None)
            names = getattr(getattr(method, "__code__", None), "co_names", ())
            # One that `checkpoint` has set calls the layer's own.
            if _NAME in names and name not in vars(part):
                own = types.MethodType(with_names(method, ops=_own_ops()), part)
                setattr(part, name, own)


_NAME = "dot_product_attention"
# That call it: in Keras' layer, and in DINOv3's.
_METHODS = ("_compute_attention", "call")


def _own_ops():
    """Return `keras.ops` for one method, with attention by this file."""
    own = types.SimpleNamespace(**vars(ops) | {_NAME: fused_attention})
    own.nn = own  # `ops` has all names of `ops.nn`.
    return own
