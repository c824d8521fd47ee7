"""Train the emoji presets: one stage a file, `train.py` runs them."""
