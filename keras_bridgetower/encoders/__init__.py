"""Encoders that bridges can join: one file for each family."""

from keras_bridgetower.encoders import bert as bert
from keras_bridgetower.encoders import classified as classified
from keras_bridgetower.encoders import clip as clip
from keras_bridgetower.encoders import dino as dino
from keras_bridgetower.encoders import efficientnet as efficientnet
from keras_bridgetower.encoders import resnet as resnet
from keras_bridgetower.encoders import roberta as roberta
from keras_bridgetower.encoders import siglip as siglip
from keras_bridgetower.encoders import swin as swin
from keras_bridgetower.encoders import vit as vit
