"""Tasks: a backbone, heads, loss and metrics, and a verb such as `answer`."""

from keras_bridgetower.tasks import classification as classification
from keras_bridgetower.tasks import contrastive as contrastive
from keras_bridgetower.tasks import pretraining as pretraining
from keras_bridgetower.tasks import retrieval as retrieval
from keras_bridgetower.tasks import task as task
