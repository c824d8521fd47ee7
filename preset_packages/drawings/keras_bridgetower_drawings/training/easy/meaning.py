"""The claims of sentences about pictures, and their truth.

A claim is true or false of each value of one attribute. Sentences combine them
by Kleene's logic: false, unknown and true are 0, 1 and 2, "and" is the minimum,
"not" is 2 minus the value. These are also the ids of contradiction, neutral and
entailment.
"""

import dataclasses

import numpy as np

from keras_bridgetower_drawings.training.easy.scenes import ATTRIBUTES

# The ids of SNLI-VE.
CONTRADICTION, NEUTRAL, ENTAILMENT = range(3)
# Of values for which neither "true" nor "false" is fair: no row is made.
UNDECIDED = -1
# What each view of a picture hides (`entailment.veil`).
HIDDEN = {
    "full": (),
    "no_colour": ("colour",),
    "no_shape": ("shape", "size", "position"),
}


@dataclasses.dataclass(frozen=True)
class Claim:
    """The claim of a phrase about one attribute.

    It is undecided for values in neither set: "north" for the top left.
    """

    attribute: str
    true: frozenset  # Words of `ATTRIBUTES`.
    false: frozenset

    def denied(self):
        """Return the claim with "not"."""
        return Claim(self.attribute, self.false, self.true)

    def presupposed(self):
        """Return the claim as a presupposition: it is never false.

        "The circle is not red" says nothing of a triangle.
        """
        return Claim(self.attribute, self.true, frozenset())


@dataclasses.dataclass(frozen=True)
class Statement:
    """A sentence and its claims, all of which must be true.

    Without a claim it is neutral: no picture shows if it is true.
    """

    text: str
    claims: tuple
    denied: bool = False  # The sentence says "not" of all of them together.


def claim(attribute, *true, undecided=()):
    rest = set(ATTRIBUTES[attribute]) - set(true) - set(undecided)
    return Claim(attribute, frozenset(true), frozenset(rest))


def judge(statement, values, view):
    """Return for each picture contradiction, neutral, entailment or -1."""
    if not statement.claims:
        return np.full(len(values), NEUTRAL)
    found = [_judge(one, values, view) for one in statement.claims]
    together = np.min(found, axis=0)
    if statement.denied:
        together = np.where(together < 0, together, ENTAILMENT - together)
    return together


def _judge(one, values, view):
    if one.attribute in HIDDEN[view]:
        return np.full(len(values), NEUTRAL)
    labels = dict.fromkeys(one.true, ENTAILMENT)
    labels |= dict.fromkeys(one.false, CONTRADICTION)
    words = ATTRIBUTES[one.attribute]
    by_value = np.array([labels.get(word, UNDECIDED) for word in words])
    return by_value[values[:, list(ATTRIBUTES).index(one.attribute)]]
