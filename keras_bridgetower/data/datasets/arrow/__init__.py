"""The Arrow tables of the authors' repository."""
