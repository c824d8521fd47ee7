"""How the presets were trained: easy-VQA and emoji."""
