"""The step of `AdamW` on PyTorch, for many variables in a few operations."""

import torch

# How many weights are updated at a time. On an accelerator it bounds the
# temporary memory. On a CPU all that a piece needs stays in the cache.
CHUNK, PIECE = 2**25, 2**17


@torch.no_grad()
def adamw(variables, alpha, decay, kept, betas, epsilon):
    """Apply the step of `AdamW.update_step` to variables of one row.

    The operations and their order are the same, and so are the results, bit
    for bit. A model has hundreds of variables, and calling twelve operations
    for each of them takes longer than the arithmetic.

    Args:
        variables: list of `(variable, gradient, momentum, velocity)`, float
            tensors of one dtype. All but the gradient are changed in place.
        alpha: scalar tensor, learning rate times bias correction.
        decay: scalar tensor, the share by which variables decay, or None.
        kept: scalar tensor, 0 if nothing must change, else 1.
        betas: two floats.
        epsilon: float.
    """
    first, second = (kept * (1 - beta) for beta in betas)
    if _in_memory(variables):
        chunks = _pieces(variables)
    else:
        chunks = _chunks(variables)
    for chunk in chunks:
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
    """The sum of all squares, a scalar tensor in float32.

    Args:
        gradients: list of float tensors.
    """
    norms = [
        torch.linalg.vector_norm(gradient, dtype=torch.float32)
        for gradient in gradients
    ]
    return torch.stack(norms).square().sum()


def known_to_be(finite):
    """Whether a bool tensor is True, where to ask does not make a GPU wait.

    Args:
        finite: bool tensor.

    Returns:
        bool; False also where it cannot be asked.
    """
    asked = finite.device.type == "cpu" and not torch.compiler.is_compiling()
    return asked and bool(finite)


def _in_memory(variables):
    """Whether all tensors lie in the memory of the CPU, without gaps.

    A program that is compiled would hold each piece, and is said not to.
    """
    return not torch.compiler.is_compiling() and all(
        tensor.device.type == "cpu" and tensor.is_contiguous()
        for values, _, *moments in variables
        for tensor in (values, *moments)
    )


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


def _pieces(variables):
    """Split variables into lists of one piece of at most `PIECE` weights."""
    for tensors in variables:
        flat = (tensor.reshape(-1).split(PIECE) for tensor in tensors)
        for piece in zip(*flat, strict=True):
            yield [piece]
