"""How the tiny presets were trained on easy-VQA."""
