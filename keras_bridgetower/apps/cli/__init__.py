"""The command line `keras-bridgetower`."""
