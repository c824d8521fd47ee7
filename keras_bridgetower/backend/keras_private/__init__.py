"""All uses of private parts of Keras."""
