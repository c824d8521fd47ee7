"""What differs by backend, and every private part of Keras that is used."""
