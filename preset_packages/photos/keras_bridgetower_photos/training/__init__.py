"""How the presets were trained: photographs of things, and what is said."""
