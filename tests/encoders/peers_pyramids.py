"""Feature pyramids: EfficientNet and ResNet."""

import functools

import torch
import transformers
from peers import Peer
from peers import count
from peers import pixels
from peers import randomised


def efficientnet(side, square=()):
    """Return a model whose blocks `square` halve an odd side."""
    config = transformers.EfficientNetConfig(
        image_size=side,
        width_coefficient=0.5,
        depth_coefficient=1.0,
        in_channels=[32, 16, 32, 48],
        out_channels=[16, 32, 48, 64],
        kernel_sizes=[3, 5, 3, 5],
        strides=[1, 2, 1, 2],
        num_block_repeats=[1, 2, 1, 1],
        expand_ratios=[1, 2, 3, 2],
        depthwise_padding=square,
        hidden_dim=640,
    )
    return moving(transformers.EfficientNetModel(config))


def moving(model):
    """Return a randomized model whose running statistics are random too.

    Outputs of convolutions are about as large as their inputs.
    """
    model = randomised(model)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 4:
                p.mul_(10 / p[0].numel() ** 0.5)
        for name, buffer in model.named_buffers():
            if "running" in name:
                noise = torch.rand(buffer.shape)
                buffer.copy_(noise + 0.5 * name.endswith("var"))
    return model


def of_maps(maps):
    return [None if x is None else x.permute(0, 2, 3, 1).numpy() for x in maps]


def efficientnet_states(model, images):
    with torch.no_grad():
        found = model(pixels(images), output_hidden_states=True)
    # The first is the output of the stem.
    return of_maps([*found.hidden_states[1:], found.last_hidden_state])


def count_with_statistics(model):
    """Return the number of weights: running statistics are none in PyTorch."""
    statistics = (b for n, b in model.named_buffers() if "running" in n)
    return count(model) + sum(b.numel() for b in statistics)


def resnet(kind, widths, first=64):
    config = transformers.ResNetConfig(
        layer_type=kind,
        hidden_sizes=widths,
        depths=[2, 1],
        embedding_size=first,
    )
    return moving(transformers.ResNetModel(config))


def resnet_states(model, images):
    with torch.no_grad():
        found = model(pixels(images), output_hidden_states=True)
    states = []
    stages = zip(model.config.depths, found.hidden_states[1:], strict=True)
    for depth, last in stages:
        # transformers gives no state inside of a stage.
        states += [None] * (depth - 1) + [last]
    return of_maps(states)


def swin(**kwargs):
    config = transformers.SwinConfig(
        image_size=32,
        patch_size=2,
        embed_dim=8,
        depths=[2, 3],
        num_heads=[1, 2],
        window_size=4,
        **kwargs,
    )
    return randomised(transformers.SwinModel(config))


def swin_states(model, images):
    with torch.no_grad():
        x, size = model.embeddings(pixels(images))
        states = []
        for stage in model.encoder.layers:
            for block in stage.blocks:
                x, _ = block(x, size)
                states.append(x.unflatten(1, size))
            if stage.downsample is not None:
                x = stage.downsample(x, size)
                size = tuple(n // 2 for n in size)
        states[-1] = model.layernorm(states[-1])
    return [x.numpy() for x in states]


def pyramid(name, make, states, **values):
    """Return a peer whose states are grids."""
    values = {"parameters": count_with_statistics, **values}
    return Peer(
        name=name,
        side="image",
        make=make,
        states=states,
        resizes=False,
        **values,
    )


PEERS = [
    pyramid("Swin", swin, swin_states, parameters=count),
    pyramid("EfficientNet", lambda: efficientnet(32), efficientnet_states),
    pyramid(
        "EfficientNet with odd sides",
        lambda: efficientnet(20, [4]),
        efficientnet_states,
        image_size=20,
    ),
    *(
        pyramid(
            f"ResNet of {kind} blocks",
            functools.partial(resnet, kind, widths),
            resnet_states,
            # Its files do not tell a size.
            image_size=224,
        )
        for kind, widths in {"basic": [64, 72], "bottleneck": [256, 32]}.items()
    ),
]
