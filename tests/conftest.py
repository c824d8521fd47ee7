"""Set up before the first test: the backend, and torch before TensorFlow."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
if os.environ.get("KERAS_BACKEND") == "torch":
    import torch  # noqa: F401  (importing it after TensorFlow can crash)
