"""Records of a data set in several files: writes, checks and reads them."""
