"""Code that depends on the Keras backend or on private parts of Keras."""
