"""Tasks: a backbone, heads, loss and metrics, and a verb such as `answer`."""

from keras_bridgetower.tasks import contrastive as contrastive
from keras_bridgetower.tasks import embedder as embedder
from keras_bridgetower.tasks import entailment as entailment
from keras_bridgetower.tasks import masked_lm as masked_lm
from keras_bridgetower.tasks import nlvr2 as nlvr2
from keras_bridgetower.tasks import pretraining as pretraining
from keras_bridgetower.tasks import retrieval as retrieval
from keras_bridgetower.tasks import task as task
from keras_bridgetower.tasks import unimodal as unimodal
from keras_bridgetower.tasks import vqa as vqa
