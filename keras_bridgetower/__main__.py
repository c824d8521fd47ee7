"""`python -m keras_bridgetower`."""

import sys

from keras_bridgetower.apps.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
