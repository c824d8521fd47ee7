"""Any task over a folder of pictures or a table, into a JSONL file."""
