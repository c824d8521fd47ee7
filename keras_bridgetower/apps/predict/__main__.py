"""Starts the command `python -m keras_bridgetower.apps.predict`."""

from keras_bridgetower.apps.predict.main import main

if __name__ == "__main__":
    main()
