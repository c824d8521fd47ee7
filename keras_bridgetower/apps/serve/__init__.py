"""An HTTP server of presets that batches the requests of many clients."""
