"""Rules that connect variables of Keras and tensors of PyTorch.

A `Rule` connects paths of variables, names of tensors, and the layout that
converts between them. The same rules load and export. Each function returns the
rules of a part.
"""

from typing import NamedTuple

from keras_bridgetower.encoders import layouts


class Rule(NamedTuple):
    """Variables and tensors that hold the same weights.

    Args:
        variables: tuple of str, paths of variables.
        keys: tuple of str, names of tensors.
        layout: `Layout` that converts between them.
    """

    variables: tuple
    keys: tuple
    layout: layouts.Layout


def same(path, key, layout=layouts.SAME):
    """Return the rule of one variable and one tensor, in a list."""
    return [Rule((path,), (key,), layout)]


def norm(path, key):
    """Return the rules of a layer normalization."""
    return same(f"{path}/gamma", f"{key}.weight") + same(
        f"{path}/beta", f"{key}.bias"
    )


def batch_norm(path, key):
    """Return the rules of a batch normalization, running statistics too."""
    return [
        *norm(path, key),
        *same(f"{path}/moving_mean", f"{key}.running_mean"),
        *same(f"{path}/moving_variance", f"{key}.running_var"),
    ]


def conv(path, key, layout=layouts.CONV):
    """Return the rule of a convolution without a bias."""
    return same(f"{path}/kernel", f"{key}.weight", layout)


def dense(path, key, layout=layouts.DENSE, bias=True):
    """Return the rules of a dense layer.

    Args:
        path, key: str, the layer in Keras and in the file.
        layout: `Layout` of the kernel.
        bias: bool, whether there is a bias; None if only Keras' layer has one,
            which becomes 0.
    """
    rules = same(f"{path}/kernel", f"{key}.weight", layout)
    if bias:
        rules += same(f"{path}/bias", f"{key}.bias", layouts.BIAS)
    elif bias is None:
        rules.append(Rule((f"{path}/bias",), (), layouts.ZEROS))
    return rules


def joined(path, key, *parts):
    """Return the rules of the parts of a layer.

    Args:
        path: str, the start of the paths of all variables.
        key: str, the start of the names of all tensors.
        *parts: tuples of a function such as `dense` and the ends of the path
            and the key that it gets.
    """
    return [
        rule
        for make, path_end, key_end in parts
        for rule in make(f"{path}{path_end}", f"{key}{key_end}")
    ]


def layers(count, path, key, *parts):
    """Return the rules of layers with the same parts.

    Args:
        count: int, number of layers.
        path: str, the start of the paths of all variables. The number of the
            layer and `/` follow it.
        key: str, the start of the names of all tensors. The number of the layer
            and `.` follow it.
        *parts: as in `joined`.
    """
    return [
        rule
        for layer in range(count)
        for rule in joined(f"{path}{layer}/", f"{key}{layer}.", *parts)
    ]


def attention(
    path,
    key,
    parts=("self.query", "self.key", "self.value"),
    output="output.dense",
    bias=True,
):
    """Return the rules of attention with separate query, key and value.

    `bias` is False if a file has none for these three, as KerasHub has.
    """
    rules = dense(
        f"{path}/attention_output", f"{key}.{output}", layouts.HEADS_DENSE
    )
    for name, part in zip(("query", "key", "value"), parts, strict=True):
        rules += dense(f"{path}/{name}", f"{key}.{part}", bias=bias or None)
    return rules
