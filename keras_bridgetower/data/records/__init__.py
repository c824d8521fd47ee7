"""Records of a data set in several files: writes, checks and reads them."""

RECORDS_PER_SHARD = 1000
# More records make larger shards: every process reads the list of shards.
MOST_SHARDS = 20_000


def usual_shards(records):
    """Return the number of shards of a split with so many records."""
    return min(-(-records // RECORDS_PER_SHARD), MOST_SHARDS)
