"""Checks the rule by which a task rejects what it does not know."""

from keras_bridgetower.checks import check_above_zero
from keras_bridgetower.checks import check_choice
from keras_bridgetower.checks import check_finite

_NEEDED, _OPTIONAL = {"kind", "threshold"}, {"temperature", "questions"}
# The table of questions, with the type of each value.
_SORT = {
    **{"name": str, "has": [[str]], "answers": [str]},
    **{"only": bool, "floor": float},
}
_TABLE = {"words": str, "share": float, "skip": [str], "sorts": [_SORT]}


def checked_rejection(rejection):
    """Return a rule as plain values, or None for None.

    Args:
        rejection: dict, as `BridgeTowerVQA` takes it.

    Raises:
        ValueError: other keys or values.
    """
    if rejection is None:
        return None
    if not isinstance(rejection, dict) or {*rejection} - _OPTIONAL != _NEEDED:
        raise ValueError(
            "`rejection` must be a dict with the keys 'kind' and 'threshold'. "
            f"Received: rejection={rejection!r:.200}"
        )
    rule = dict(rejection)
    check_choice("kind", rule["kind"], ("energy",))
    for key in rule.keys() - {"kind", "questions"}:
        check_finite(key, rule[key])
        rule[key] = float(rule[key])
    check_above_zero("temperature", rule.get("temperature", 1.0))
    if "questions" in rule:
        table = rule["questions"]
        right = _is_like(table, _TABLE) and table["sorts"]
        # The last sort takes every question.
        if not right or table["sorts"][-1]["has"]:
            raise ValueError(
                f"`questions` must be like {_TABLE}, and `has` of the last "
                f"sort empty. Received: questions={table!r:.200}"
            )
    return rule


def _is_like(value, like):
    if isinstance(like, dict):
        right = isinstance(value, dict) and {*value} == {*like}
        return right and all(_is_like(value[key], like[key]) for key in like)
    if isinstance(like, list):
        right = isinstance(value, list)
        return right and all(_is_like(one, like[0]) for one in value)
    return isinstance(value, like)
