"""Analyze trained models: attention maps, relevance, head diversity."""

from keras_bridgetower.analysis import figures as figures
from keras_bridgetower.analysis.diversity import HeadDiversity as HeadDiversity
from keras_bridgetower.analysis.diversity import (
    head_diversity as head_diversity,
)
from keras_bridgetower.analysis.maps import AttentionMap as AttentionMap
from keras_bridgetower.analysis.maps import attention_map as attention_map
from keras_bridgetower.analysis.maps import (
    attention_rollout as attention_rollout,
)
from keras_bridgetower.analysis.maps import relevance as relevance
