"""Reader of a user's own data: tables of texts, and a folder of pictures."""
