"""The step of `AdamW` on PyTorch, for many variables at once."""

import torch

# Maximum number of weights to update at a time, which limits the temporary
# memory.
CHUNK = 2**23


@torch.no_grad()
def adamw(variables, alpha, decay, kept, betas, epsilon):
    """Apply the step of `AdamW.update_step` to variables of one row.

    The operations, their order and so the results are the same, bit for bit.
    For the hundreds of variables of a model, calling twelve operations each
    takes longer than the arithmetic.

    Args:
        variables: list of `(variable, gradient, momentum, velocity)`, float
            tensors of one dtype. All but the gradient are changed in place.
        alpha: scalar tensor, learning rate times bias correction.
        decay: scalar tensor, the share by which variables decay, or None.
        kept: scalar tensor, 0 to change nothing, else 1.
        betas: two floats.
        epsilon: float.
    """
    first, second = (kept * (1 - beta) for beta in betas)
    for chunk in _chunks(variables):
        values, gradients, momenta, velocities = map(
            list, zip(*chunk, strict=True)
        )
        if decay is not None:
            decayed = torch._foreach_mul(values, decay)
            torch._foreach_sub_(values, decayed)
        _approach(momenta, gradients, first)
        _approach(velocities, torch._foreach_mul(gradients, gradients), second)
        roots = torch._foreach_sqrt(velocities)
        torch._foreach_add_(roots, epsilon)
        change = torch._foreach_mul(momenta, alpha)
        torch._foreach_div_(change, roots)
        torch._foreach_sub_(values, change)


@torch.no_grad()
def square_sum(gradients):
    """Return the sum of all squares, a scalar tensor in float32.

    Args:
        gradients: list of float tensors.
    """
    norms = [
        torch.linalg.vector_norm(gradient, dtype=torch.float32)
        for gradient in gradients
    ]
    return torch.stack(norms).square().sum()


def known_to_be(finite):
    """Return True if a tensor is known to be True without waiting for a GPU.

    False while compiling, where the value is unknown.
    """
    known = finite.device.type == "cpu" and not torch.compiler.is_compiling()
    return known and bool(finite)


def _approach(averages, values, share):
    """Move running averages towards values by a share of the difference."""
    change = torch._foreach_sub(values, averages)
    torch._foreach_mul_(change, share)
    torch._foreach_add_(averages, change)


def _chunks(variables):
    """Split variables into lists of at most `CHUNK` weights, or one each."""
    chunk, size = [], 0
    for one in variables:
        if chunk and size + one[0].numel() > CHUNK:
            yield chunk
            chunk, size = [], 0
        chunk.append(one)
        size += one[0].numel()
    yield chunk
