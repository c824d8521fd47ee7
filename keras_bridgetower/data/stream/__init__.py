"""Batches of records by number, which a run can restart anywhere."""
