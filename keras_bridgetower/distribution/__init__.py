"""Training on several devices and hosts, on each backend."""
