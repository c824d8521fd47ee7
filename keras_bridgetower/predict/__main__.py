"""Starts the command `python -m keras_bridgetower.predict`."""

from keras_bridgetower.predict.main import main

if __name__ == "__main__":
    main()
