"""Scripts that trained the tiny presets on easy-VQA."""
