"""Means and deviations of pixels with which encoders were trained."""

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
# Of EfficientNet-Lite, in pixels 127 and 128.
LITE = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}
# To the range from -1 to 1.
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
