"""From the seconds of turns to a ratio with quartiles."""

import statistics


def summary(pairs):
    """What turns of a contender and its reference say.

    Each ratio is that of two turns which followed each other, so that what
    else the machine does slows both.

    Args:
        pairs: list of `(contender's seconds, reference's seconds)`, two or
            more.

    Returns:
        dict: median `seconds` and `reference` seconds; the median `ratio` of
        the reference's seconds to the contender's (above 1 is faster); its
        quartiles `low` and `high`, interpolated between turns.
    """
    ratios = [reference / seconds for seconds, reference in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return {
        "seconds": statistics.median(seconds for seconds, _ in pairs),
        "reference": statistics.median(reference for _, reference in pairs),
        "ratio": middle,
        "low": low,
        "high": high,
    }


def distance(outputs, wanted):
    """The largest difference, relative to the largest wanted output.

    Args:
        outputs, wanted: lists of rows of floats.

    Returns:
        float.
    """
    difference = max(
        abs(a - b)
        for ours, theirs in zip(outputs, wanted, strict=True)
        for a, b in zip(ours, theirs, strict=True)
    )
    return difference / max(abs(x) for row in wanted for x in row)
