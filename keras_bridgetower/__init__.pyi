from . import analysis as analysis
from . import convert as convert
from . import data as data
from . import metrics as metrics
from . import training as training
from .apps import search as search
from .apps.search.adapters import (
    export_to_sentence_transformers as export_to_sentence_transformers,
)
from .data.stream.stream import Stream as Stream
from .distribution.distribute import distribute as distribute
from .encoders.registry import hidden_states as hidden_states
from .encoders.registry import register_encoder as register_encoder
from .metrics.keras_metrics import VQAScore as VQAScore
from .models.backbone import BridgeTowerBackbone as BridgeTowerBackbone
from .models.bridges import BridgeLayer as BridgeLayer
from .models.exporting.runtime import ExportedModel as ExportedModel
from .models.fusion import CrossModalEncoder as CrossModalEncoder
from .models.head_table import register_head as register_head
from .models.managers import ManagerLayer as ManagerLayer
from .models.towers import Tower as Tower
from .objectives.list_losses import LambdaRankLoss as LambdaRankLoss
from .objectives.list_losses import ListDistillationLoss as ListDistillationLoss
from .objectives.list_losses import ListwiseSoftmaxLoss as ListwiseSoftmaxLoss
from .objectives.list_losses import MarginMSELoss as MarginMSELoss
from .objectives.losses import VQALoss as VQALoss
from .preprocessing.classification import (
    BridgeTowerEntailmentPreprocessor as BridgeTowerEntailmentPreprocessor,
)
from .preprocessing.classification import (
    BridgeTowerImageClassifierPreprocessor as BridgeTowerImageClassifierPreprocessor,
)
from .preprocessing.classification import (
    BridgeTowerNLVR2Preprocessor as BridgeTowerNLVR2Preprocessor,
)
from .preprocessing.classification import (
    BridgeTowerTextClassifierPreprocessor as BridgeTowerTextClassifierPreprocessor,
)
from .preprocessing.classification import (
    BridgeTowerTextRegressorPreprocessor as BridgeTowerTextRegressorPreprocessor,
)
from .preprocessing.classification import (
    BridgeTowerVQAPreprocessor as BridgeTowerVQAPreprocessor,
)
from .preprocessing.image_converter import (
    BridgeTowerImageConverter as BridgeTowerImageConverter,
)
from .preprocessing.kept_states import KeptStates as KeptStates
from .preprocessing.preprocessor import (
    BridgeTowerPreprocessor as BridgeTowerPreprocessor,
)
from .preprocessing.pretraining import (
    BridgeTowerMaskedLMPreprocessor as BridgeTowerMaskedLMPreprocessor,
)
from .preprocessing.pretraining import (
    BridgeTowerPretrainingPreprocessor as BridgeTowerPretrainingPreprocessor,
)
from .preprocessing.retrieval import (
    BridgeTowerContrastivePreprocessor as BridgeTowerContrastivePreprocessor,
)
from .preprocessing.retrieval import (
    BridgeTowerListRankingPreprocessor as BridgeTowerListRankingPreprocessor,
)
from .preprocessing.retrieval import (
    BridgeTowerRetrievalPreprocessor as BridgeTowerRetrievalPreprocessor,
)
from .preprocessing.tokenizer import (
    BridgeTowerBertTokenizer as BridgeTowerBertTokenizer,
)
from .preprocessing.tokenizer import (
    BridgeTowerJsonTokenizer as BridgeTowerJsonTokenizer,
)
from .preprocessing.tokenizer import (
    BridgeTowerTokenizer as BridgeTowerTokenizer,
)
from .presets.table import default_family as default_family
from .presets.table import first_examples as first_examples
from .presets.verbs import Verb as Verb
from .tasks.classification import BridgeTowerEntailment as BridgeTowerEntailment
from .tasks.classification import (
    BridgeTowerImageClassifier as BridgeTowerImageClassifier,
)
from .tasks.classification import BridgeTowerNLVR2 as BridgeTowerNLVR2
from .tasks.classification import (
    BridgeTowerTextClassifier as BridgeTowerTextClassifier,
)
from .tasks.classification import (
    BridgeTowerTextRegressor as BridgeTowerTextRegressor,
)
from .tasks.classification import BridgeTowerVQA as BridgeTowerVQA
from .tasks.contrastive import BridgeTowerContrastive as BridgeTowerContrastive
from .tasks.contrastive import BridgeTowerEmbedder as BridgeTowerEmbedder
from .tasks.pretraining import BridgeTowerMaskedLM as BridgeTowerMaskedLM
from .tasks.pretraining import BridgeTowerPretraining as BridgeTowerPretraining
from .tasks.retrieval import BridgeTowerListRanking as BridgeTowerListRanking
from .tasks.retrieval import BridgeTowerReranker as BridgeTowerReranker
from .tasks.retrieval import BridgeTowerRetrieval as BridgeTowerRetrieval
from .tasks.task import BridgeTowerTask as BridgeTowerTask
from .training.runs.checkpoint import Checkpoint as Checkpoint
