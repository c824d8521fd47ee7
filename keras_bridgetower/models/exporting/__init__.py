"""`model.export`: a model, or a part of it, for programs without Keras."""
