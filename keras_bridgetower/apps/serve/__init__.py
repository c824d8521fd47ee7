"""A server of presets over HTTP, which batches the requests of many clients."""
