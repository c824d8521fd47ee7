"""Merges image tokens that are alike, before the fusion."""

from keras import ops


def merge_tokens(states, count):
    """Merge image tokens that are alike until `count` are left.

    Tokens are alike if their highest states have a large cosine. In each
    round every second token may join one of the others; the most similar
    pairs do. Each state of a token that is left is the mean of the states
    that were merged. The first token, which poolers read, stays alone.

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
    alike = means = ops.cast(states[-1], "float32")
    left, members = alike.shape[1], None
    while left > count:
        merged = min(left - count, left // 2)
        joined = _round(means, merged)
        members = joined if members is None else ops.matmul(joined, members)
        left -= merged
        means = _means(members, alike)
    return [_means(members, state) for state in states]


def _round(x, merged):
    """Return the matrix from tokens to those left after a round.

    Args:
        x: float tensor `(batch, tokens, width)`.
        merged: int, how many tokens join another one.

    Returns:
        float tensor `(batch, tokens - merged, tokens)` of 0 and 1.
    """
    length = x.shape[1]
    x = x / ops.maximum(ops.norm(x, axis=-1, keepdims=True), 1e-6)
    # Of tokens 1, 3, ... some join one of 2, 4, ...
    giving, taking = x[:, 1::2], x[:, 2::2]
    cosines = ops.matmul(giving, ops.transpose(taking, (0, 2, 1)))
    # By `top_k`, as ONNX has no stable sort.
    _, nearest = ops.top_k(ops.max(cosines, axis=-1), merged, sorted=False)
    nearest = ops.one_hot(nearest, giving.shape[1], dtype="float32")
    joins = ops.sum(nearest, axis=1)
    # New positions of those that stay, by counting them: all of 2, 4, ..., too.
    stays = _alternating(1 - joins, ops.ones_like(joins), length)
    positions = ops.cumsum(stays, axis=1)
    partners = ops.one_hot(
        ops.argmax(cosines, axis=-1), taking.shape[1], dtype="float32"
    )
    to = ops.matmul(partners, positions[:, 1::2, None])[:, :, 0]
    given = ops.where(joins > 0, to, positions[:, 0::2])
    taken = positions[:, 1::2]
    if taking.shape[1] < giving.shape[1]:
        taken = ops.pad(taken, ((0, 0), (0, 1)))
    positions = ops.pad(_alternating(given, taken, length), ((0, 0), (1, 0)))
    positions = ops.cast(positions, "int32")
    return ops.one_hot(positions, length - merged, axis=1, dtype="float32")


def _alternating(first, second, length):
    """Return the columns of two tensors in turn, `length - 1` of them."""
    both = ops.stack([first, second], axis=-1)
    return ops.reshape(both, (-1, 2 * first.shape[1]))[:, : length - 1]


def _means(members, x):
    """Return the means of merged tokens, `(batch, count, width)`."""
    shares = members / ops.sum(members, axis=-1, keepdims=True)
    return ops.matmul(ops.cast(shares, x.dtype), x)
