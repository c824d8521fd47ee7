"""Records in sharded files: written whole, checked, read at random."""
