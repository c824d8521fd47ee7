"""The authors' image transforms."""
