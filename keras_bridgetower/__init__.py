"""BridgeTower vision-language models for Keras 3."""

from keras_bridgetower.backbone import (
    BridgeTowerBackbone as BridgeTowerBackbone,
)
from keras_bridgetower.bridges import BridgeLayer as BridgeLayer
from keras_bridgetower.fusion import CrossModalEncoder as CrossModalEncoder
from keras_bridgetower.losses import VQALoss as VQALoss
from keras_bridgetower.metrics.vqa import VQAScore as VQAScore
from keras_bridgetower.preprocessing.contrastive import (
    BridgeTowerContrastivePreprocessor as BridgeTowerContrastivePreprocessor,
)
from keras_bridgetower.preprocessing.image_converter import (
    BridgeTowerImageConverter as BridgeTowerImageConverter,
)
from keras_bridgetower.preprocessing.tokenizer import (
    BridgeTowerTokenizer as BridgeTowerTokenizer,
)
from keras_bridgetower.preprocessing.vqa import (
    BridgeTowerVQAPreprocessor as BridgeTowerVQAPreprocessor,
)
from keras_bridgetower.tasks.contrastive import (
    BridgeTowerContrastive as BridgeTowerContrastive,
)
from keras_bridgetower.tasks.embedder import (
    BridgeTowerEmbedder as BridgeTowerEmbedder,
)
from keras_bridgetower.tasks.vqa import BridgeTowerVQA as BridgeTowerVQA
from keras_bridgetower.towers import Tower as Tower
from keras_bridgetower.towers import hidden_states as hidden_states
from keras_bridgetower.version import __version__ as __version__
