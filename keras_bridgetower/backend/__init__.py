"""Code that differs by backend, and all uses of private parts of Keras."""
