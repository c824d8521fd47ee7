"""Exchange the classes of things, so that a fusion learns a thousand nouns.

The world has some two hundred nouns, which a fusion would memorize. So class
probabilities of a scene move to other classes, as if a toaster stood where the
owl is, and texts change with them: "the toaster is left of the lamp". Classes
like the owl become classes like the toaster, so the usual confusions stay.
"""

import collections
import re

import numpy as np

from keras_bridgetower_photos.training import things
from keras_bridgetower_photos.training import words

# Sorts of questions whose answers name nothing.
SORTS = {
    *("color", "count", "position", "side"),
    *("is noun", "is color", "is relation", "is count", "is place"),
}
# So many most similar classes may be true of the same thing.
NEAR = 30
# Names that mean something else as well.
_OTHERS = {*things.COLORS, "does"}


class Swaps:
    """Draws exchanges of classes.

    Args:
        known: list of `Class`.
        vectors: float `(classes, width)`, the classes as texts.
        shown: list of `Thing` and `Photograph`.
        seen: float `(shown, classes)`, their class probabilities.
    """

    def __init__(self, known, vectors, shown, seen):
        self.known = known
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        # All classes, most similar first, and the rank of each.
        self.order = np.argsort(-unit @ unit.T, 1).astype("int32")
        self.rank = np.argsort(self.order, 1)
        rows, nouns = collections.defaultdict(list), {}
        for row, one in enumerate(shown):
            rows[one.noun].append(row)
            for name in words.called(one):
                for said in {name, words.plural(name)}:
                    nouns.setdefault(said.lower(), set()).add(one.noun)
        self.class_of = {
            noun: int(seen[own].mean(0).argmax()) for noun, own in rows.items()
        }
        nouns = {n: of for n, of in nouns.items() if n not in _OTHERS}
        self.nouns, self.fixed = nouns, _pattern(_fixed(shown))
        singular = {n.lower() for one in shown for n in words.called(one)}
        self.plurals = nouns.keys() - singular
        self.pattern = pattern_of(nouns)
        self.kind_of = {one.noun: one.kind for one in shown}

    def draw(self, nouns, rng):
        """Return a `Swap` that begins with one of the nouns of a scene."""
        return self.draw_from(
            self.class_of[nouns[rng.integers(len(nouns))]], rng
        )

    def draw_from(self, own, rng):
        """Return a `Swap` of a class, and of those that are like it."""
        new = rng.integers(len(self.known))
        to = np.empty(len(self.known), "int32")
        to[self.order[own]] = self.order[new]
        return Swap(self, to)

    def name(self, number, rng, but=()):
        """Draw what to call a class, or return `""`; the usual name often."""
        own = [w for w in self.known[number].words if w not in but]
        if not own:
            return ""
        return own[0] if rng.random() < 0.6 else str(rng.choice(own))

    def are_apart(self, classes, others):
        """Return whether no class of a scene is like one of another."""
        return bool((self.rank[np.ix_(classes, others)] >= NEAR).all())


class Swap:
    """An exchange: class `i` becomes class `to[i]`."""

    def __init__(self, swaps, to):
        self.swaps, self.to = swaps, to

    def classes(self, nouns):
        return self.to[[self.swaps.class_of[noun] for noun in nouns]]

    def states(self, states):
        """Exchange the classes of a picture, in front of each token."""
        moved = states.copy()
        moved[..., self.to] = states[..., : len(self.to)]
        return moved

    def rename(self, text, nouns, rng):
        """Return a text about the new things, or None where that fails."""
        return self._say(text, nouns, self.to, rng)

    def became(self, noun, nouns):
        """Return the new `Class` of a thing, or None where that is unclear."""
        own = {self.swaps.class_of[one] for one in nouns}
        if len(own) < len(nouns) or _OTHERS & {*nouns}:
            return None
        return self.swaps.known[self.to[self.swaps.class_of[noun]]]

    def misname(self, text, nouns, rng):
        """Return a text with a wrong name, often one that is nearly right."""
        classes = [self.swaps.class_of[noun] for noun in nouns]
        own = classes[rng.integers(len(classes))]
        most = len(self.to)
        if rng.random() < 0.5:
            most = min(NEAR, most)
        wrong = self.swaps.order[self.to[own]][rng.integers(1, most)]
        if wrong in self.to[classes]:
            return None
        to = self.to.copy()
        to[own] = wrong
        told, false = (
            self._say(text, nouns, how, np.random.default_rng(0))
            for how in (self.to, to)
        )
        # The text must name the thing, and names of two classes may be equal.
        return self._say(text, nouns, to, rng) if told != false else None

    def _say(self, text, nouns, to, rng):
        swaps = self.swaps
        own = {swaps.class_of[noun] for noun in nouns}
        if len(own) < len(nouns) or _OTHERS & {*nouns}:
            return None
        if swaps.fixed.search(text):
            return None
        chosen, failed = {}, []
        # Of other classes, nothing is said that is true of these as well.
        true = {w for c in own for w in swaps.known[self.to[c]].words}

        def put(match):
            said = match[2].lower()
            meant = swaps.nouns[said]
            meant = meant & set(nouns) or meant
            old = {swaps.class_of[noun] for noun in meant}
            # Two meanings, or another thing that looks like one of these.
            if len(old) > 1 or (old <= own and not meant & set(nouns)):
                failed.append(said)
                return match[0]
            (old,) = old
            but = () if to[old] == self.to[old] and old in own else true
            if old not in chosen:
                chosen[old] = swaps.name(to[old], rng, but)
            word = chosen[old]
            if not word:
                failed.append(said)
                return match[0]
            if said in swaps.plurals:
                word = words.plural(word)
            elif match[1] or match[2][0].isupper() and match.start():
                word = words.with_article(word)
            return begun(match, word)

        new = swaps.pattern.sub(put, text)
        return None if failed or not chosen else new


def _fixed(shown):
    """Return words that tell what a thing is, and cannot be exchanged."""
    nouns = {one.noun for one in shown}
    kinds = {*things.KINDS, *things.BROAD.values(), *things.PLACES}
    kinds |= {w for several in words.PARAPHRASES.values() for w in several}
    kinds = {
        kind for kind in kinds if kind not in nouns or kind in things.BROAD
    }
    # "A thing" and "an object" are said of anything.
    kinds -= {"object", "an object", "a thing", "something"}
    measures = {"pair of", "bunch of", "set of", "group of", "row of"}
    return kinds | {words.plural(kind) for kind in kinds} | measures


def pattern_of(names):
    """Return a pattern of names, with an article before them or without."""
    return _pattern(names, "(?:(an?) )?")


def _pattern(names, before=""):
    names = sorted(map(re.escape, names), key=len, reverse=True)
    return re.compile(rf"\b{before}({'|'.join(names)})\b", re.IGNORECASE)


def begun(match, word):
    """Capitalize a word at the start of a text that is capitalized."""
    first = match[0][0].isupper() and not match.start()
    return word[0].upper() + word[1:] if first else word
