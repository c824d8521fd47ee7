"""Tables of VQAv2's protocols and splits, for its two readers."""

from keras_bridgetower.data.datasets.base import Split

# Number of validation pictures that the protocol `held_out` does not train on;
# ViLT held out as many.
HELD_OUT = 1000
# End of the name of a part that also holds questions without a class.
ALL_QUESTIONS = "_all"
TESTS = {
    "test": Split(
        ("vqav2_test",), "test2015, test-dev and test-std, without answers."
    ),
    "test_dev": Split(
        ("vqav2_test-dev2015",), "test-dev2015, without answers."
    ),
}
_ASKED = {
    ALL_QUESTIONS: "all questions; those without a class among their answers "
    "score 0",
    "": "without the questions that have no class among their answers",
}


def _protocols(counting, fix, asked):
    """Make the protocols for one way to score answers.

    Args:
        counting: str, describes how answers are scored.
        fix: str, ending of the names of its parts.
        asked: str, key of `_ASKED`: which questions honest validation asks.
    """
    train, val = f"vqav2_train{fix}", f"vqav2_val{fix}"
    words = f"{counting}, {_ASKED[asked]}."
    return {
        "honest": {
            "train": Split((train,), f"train2014, {counting}."),
            "validation": Split((f"{val}{asked}",), f"val2014, {words}"),
        },
        "held_out": {
            "train": Split(
                (train, f"vqav2_trainable_val{fix}"),
                f"train2014 and all but {HELD_OUT:,} pictures of val2014, "
                f"{counting}.",
            ),
            "validation": Split(
                (f"vqav2_rest_val{fix}{asked}",),
                f"{HELD_OUT:,} pictures of val2014, {words}",
            ),
        },
        "official": {
            "train": Split((train, val), f"train2014 and val2014, {counting}."),
            "validation": Split(
                (val,),
                f"val2014, {counting}.",
                "the official training set holds all of it, so its score is "
                "none of unseen pictures.",
            ),
        },
    }


def _both_countings(asked):
    fixed = _protocols("answers normalised", "_fix", asked)
    typed = _protocols("answers counted as typed", "", asked)
    return fixed | {f"{name}_as_typed": of for name, of in typed.items()}


PROTOCOLS = {
    name: splits | TESTS
    for name, splits in _both_countings(ALL_QUESTIONS).items()
}
# The Arrow tables have none for test-dev alone, and none for `held_out` with
# normalised answers.
TABLE_PROTOCOLS = {
    name: splits | {"test": TESTS["test"]}
    for name, splits in _both_countings("").items()
    if name != "held_out"
}
