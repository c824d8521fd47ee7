"""Fewer image tokens for the fusion: those that are alike become one."""

from keras import ops


def merge_tokens(states, count):
    """Merge image tokens that are alike until `count` are left.

    Tokens are alike if their highest states have a large cosine. In each
    round every second token may join one of the others; the most similar
    pairs do. All states of a token that is left are the means of the states
    that it stands for. The first token, which poolers read, stays alone.

    Args:
        states: list of float tensors `(batch, tokens, width)`, lowest first.
        count: int from 2, smaller than the number of tokens.

    Returns:
        list of float tensors `(batch, count, width)`.

    Example:

    ```python
    states = [np.random.normal(size=(1, 50, 8))]
    merge_tokens(states, 20)[0].shape  # (1, 20, 8)
    ```

    Source: Token Merging (Bolya et al., ICLR 2023): its bipartite matching,
    here between the towers and the fusion.
    """
    total = states[-1].shape[1]
    alike = ops.cast(states[-1], "float32")
    # For each token the one that it joined, `(batch, tokens)`.
    joined = ops.zeros_like(alike[:, :, 0], dtype="int32") + ops.arange(total)
    left = total
    while left > count:
        merged = min(left - count, left // 2)
        joined = ops.take_along_axis(_round(alike, merged), joined, axis=1)
        left -= merged
        alike = _means(ops.cast(states[-1], "float32"), joined, left)
    return [_means(state, joined, count) for state in states]


def _round(x, merged):
    """Return for each token its place after a round, `(batch, tokens)`."""
    length = x.shape[1]
    x = x / ops.maximum(ops.norm(x, axis=-1, keepdims=True), 1e-6)
    # Of tokens 1, 3, ... some join one of 2, 4, ...
    giving, taking = x[:, 1::2], x[:, 2::2]
    cosines = ops.matmul(giving, ops.transpose(taking, (0, 2, 1)))
    order = ops.argsort(-ops.max(cosines, axis=-1), axis=-1)
    joins = ops.argsort(order, axis=-1) < merged
    kept = ops.cast(ops.logical_not(joins), "int32")
    # Tokens that are left: the first, then the others in their order.
    stays = ops.reshape(
        ops.stack([kept, ops.ones_like(kept)], axis=-1),
        (-1, 2 * kept.shape[1]),
    )[:, : length - 1]
    places = ops.cumsum(stays, axis=1)
    partner = ops.cast(ops.argmax(cosines, axis=-1), "int32")
    to = ops.take_along_axis(places[:, 1::2], partner, axis=1)
    given = ops.where(joins, to, places[:, 0::2])
    if taking.shape[1] < giving.shape[1]:
        taken = ops.pad(places[:, 1::2], ((0, 0), (0, 1)))
    else:
        taken = places[:, 1::2]
    both = ops.reshape(
        ops.stack([given, taken], axis=-1), (-1, 2 * given.shape[1])
    )[:, : length - 1]
    return ops.pad(both, ((0, 0), (1, 0)))


def _means(x, joined, count):
    """Return the means of the tokens that have joined, `(batch, count, D)`."""
    member = ops.one_hot(joined, count, axis=1, dtype=x.dtype)
    sizes = ops.sum(member, axis=-1, keepdims=True)
    return ops.matmul(member, x) / sizes
