"""Training on several devices and hosts, with each backend."""
