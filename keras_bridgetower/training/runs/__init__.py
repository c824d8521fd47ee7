"""Training runs that are saved, checked and continued."""
