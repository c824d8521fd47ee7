"""BridgeTower vision-language models for Keras 3."""

from keras_bridgetower.distribution.distribute import distribute as distribute
from keras_bridgetower.losses import VQALoss as VQALoss
from keras_bridgetower.metrics.vqa import VQAScore as VQAScore
from keras_bridgetower.models.backbone import (
    BridgeTowerBackbone as BridgeTowerBackbone,
)
from keras_bridgetower.models.bridges import BridgeLayer as BridgeLayer
from keras_bridgetower.models.fusion import (
    CrossModalEncoder as CrossModalEncoder,
)
from keras_bridgetower.models.head_table import register_head as register_head
from keras_bridgetower.models.towers import Tower as Tower
from keras_bridgetower.models.towers import hidden_states as hidden_states
from keras_bridgetower.preprocessing.bert_tokenizer import (
    BridgeTowerBertTokenizer as BridgeTowerBertTokenizer,
)
from keras_bridgetower.preprocessing.contrastive import (
    BridgeTowerContrastivePreprocessor as BridgeTowerContrastivePreprocessor,
)
from keras_bridgetower.preprocessing.entailment import (
    BridgeTowerEntailmentPreprocessor as BridgeTowerEntailmentPreprocessor,
)
from keras_bridgetower.preprocessing.image_converter import (
    BridgeTowerImageConverter as BridgeTowerImageConverter,
)
from keras_bridgetower.preprocessing.masked_lm import (
    BridgeTowerMaskedLMPreprocessor as BridgeTowerMaskedLMPreprocessor,
)
from keras_bridgetower.preprocessing.nlvr2 import (
    BridgeTowerNLVR2Preprocessor as BridgeTowerNLVR2Preprocessor,
)
from keras_bridgetower.preprocessing.preprocessor import (
    BridgeTowerPreprocessor as BridgeTowerPreprocessor,
)
from keras_bridgetower.preprocessing.pretraining import (
    BridgeTowerPretrainingPreprocessor as BridgeTowerPretrainingPreprocessor,
)
from keras_bridgetower.preprocessing.retrieval import (
    BridgeTowerRetrievalPreprocessor as BridgeTowerRetrievalPreprocessor,
)
from keras_bridgetower.preprocessing.tokenizer import (
    BridgeTowerTokenizer as BridgeTowerTokenizer,
)
from keras_bridgetower.preprocessing.unimodal import (
    BridgeTowerImageClassifierPreprocessor as BridgeTowerImageClassifierPreprocessor,  # noqa: E501
)
from keras_bridgetower.preprocessing.unimodal import (
    BridgeTowerTextClassifierPreprocessor as BridgeTowerTextClassifierPreprocessor,  # noqa: E501
)
from keras_bridgetower.preprocessing.unimodal import (
    BridgeTowerTextRegressorPreprocessor as BridgeTowerTextRegressorPreprocessor,  # noqa: E501
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
from keras_bridgetower.tasks.entailment import (
    BridgeTowerEntailment as BridgeTowerEntailment,
)
from keras_bridgetower.tasks.masked_lm import (
    BridgeTowerMaskedLM as BridgeTowerMaskedLM,
)
from keras_bridgetower.tasks.nlvr2 import BridgeTowerNLVR2 as BridgeTowerNLVR2
from keras_bridgetower.tasks.pretraining import (
    BridgeTowerPretraining as BridgeTowerPretraining,
)
from keras_bridgetower.tasks.retrieval import (
    BridgeTowerRetrieval as BridgeTowerRetrieval,
)
from keras_bridgetower.tasks.task import BridgeTowerTask as BridgeTowerTask
from keras_bridgetower.tasks.unimodal import (
    BridgeTowerImageClassifier as BridgeTowerImageClassifier,
)
from keras_bridgetower.tasks.unimodal import (
    BridgeTowerTextClassifier as BridgeTowerTextClassifier,
)
from keras_bridgetower.tasks.unimodal import (
    BridgeTowerTextRegressor as BridgeTowerTextRegressor,
)
from keras_bridgetower.tasks.vqa import BridgeTowerVQA as BridgeTowerVQA
from keras_bridgetower.version import __version__ as __version__
