"""Streams: batches made from records, which a run can continue anywhere."""
