"""English for scenes: articles, plurals, spellings, and what excludes what."""

import json
import pathlib
import re

from keras_bridgetower_drawings.training import reports
from keras_bridgetower_drawings.training.easy import spelling

from keras_bridgetower_photos.training import things

_TABLES = json.loads(pathlib.Path(__file__).with_suffix(".json").read_text())
# What is said of a place: "by the sea" and not "in front of a sea".
_AT_PLACES = _TABLES["at places"]
# Nouns with a definite article.
_ONLY_ONE = frozenset(_TABLES["only one"])
# What kinds and broad kinds are called besides: "something to eat".
PARAPHRASES = _TABLES["paraphrases"]
NUMBERS = ("zero", "one", "two", "three", "four")
# What a plural that names one thing is counted in: "a pair of scissors".
_MEASURES = _TABLES["measures"]
_UNCOUNTED = frozenset(_TABLES["uncounted"])
_SINGULAR = frozenset(_TABLES["singular"])
_PLURALS = _TABLES["plurals"]
# Nouns, kinds and places that can be true of one picture.
_MAY_BE_SAME = [frozenset(several) for several in _TABLES["may be the same"]]
_NEAR_COLORS = {frozenset(pair) for pair in _TABLES["near colors"]}
_JOINS = "of|on|in|with|and|at|by|behind|from|over|under"
# Words in the American and the British spelling.
_SPELLED = ("color", "gray")


def is_countable(noun):
    return not _is_uncounted(noun) and not _is_plural(noun)


def _is_uncounted(noun):
    return _head(noun) in _UNCOUNTED


def _is_plural(noun):
    head = _head(noun).lower()
    ending = re.search("[^sui]s$", head) or head in _MEASURES
    return bool(ending) and head not in _SINGULAR


def is_proper(name):
    """Return True for a proper name: "Taj Mahal", not "Egyptian goose"."""
    end = _last(name.replace(" at night", ""))
    return name[0].isupper() and (end[:1].isupper() or "'s " in name)


def with_article(words, noun=None):
    """Return `"an owl"` for `"owl"`; the noun is the last word by default."""
    noun = noun or words
    if noun in _ONLY_ONE:
        return f"the {words}"
    if is_proper(noun) or _is_uncounted(noun) or noun.startswith("half an"):
        return words
    if _is_plural(noun):
        measure = _MEASURES.get(_head(noun))
        return f"a {measure} of {words}" if measure else words
    vowel = re.match("[aeiou]|hour", words.lower())
    no_vowel = re.match("uni|use|ute|uku|eu|one", words.lower())
    letters = re.match("[AEFHILMNORSX][A-Z]", words)
    return f"{'an' if vowel and not no_vowel or letters else 'a'} {words}"


def with_the(noun):
    if is_proper(noun):
        return noun
    measure = _MEASURES.get(_head(noun))
    return f"the {measure} of {noun}" if measure else f"the {noun}"


def plural(noun):
    if not is_countable(noun) or is_proper(noun):
        return noun
    for join in (" of ", " or "):
        head, found, rest = noun.partition(join)
        if found:
            rest = plural(rest) if join == " or " else rest
            return plural(head) + join + rest
    last = _last(noun)
    return noun[: len(noun) - len(last)] + _plural_of_word(last)


def _plural_of_word(word):
    if word in _PLURALS:
        return _PLURALS[word]
    if word.endswith("fish"):
        return word
    if word.endswith("man"):
        return word[:-2] + "en"
    if re.search("(s|x|z|ch|sh)$", word):
        return word + "es"
    if re.search("[^aeiou]y$", word):
        return word[:-1] + "ies"
    return word + "s"


def spelled(text, rng):
    """Draw the American or the British spelling."""
    return reports.draw(spelling.both(text, _SPELLED), rng)


def called(thing):
    """Return all that a thing may be called by its own name."""
    return tuple(dict.fromkeys((thing.noun, thing.name, *thing.names)))


def names_of_one(thing):
    """Return what one thing may be called, without plurals and "money"."""
    return [
        name
        for name in called(thing)
        if name == thing.noun or is_countable(name)
    ]


def are_apart(one, other):
    """Return True if no name of one is true of the other."""
    both = (one, other), (other, one)
    return all(is_false(name, x) for y, x in both for name in called(y))


def is_false(name, thing):
    """Return True if a name or a kind is surely wrong for a thing."""
    own = (*called(thing), thing.kind, things.BROAD[thing.kind])
    return not any(_may_be_same(name, word) for word in own)


def is_false_color(color, own):
    return color != own and frozenset((color, own)) not in _NEAR_COLORS


def _may_be_same(one, other):
    one, other = one.lower(), other.lower()
    if one.endswith(other) or other.endswith(one):
        return True
    pairs = {one, other}, {_last(one), _last(other)}
    return any(pair <= same for pair in pairs for same in _MAY_BE_SAME)


def at_place(place, rng):
    if place in _AT_PLACES:
        return reports.draw(_AT_PLACES[place], rng)
    return f"in front of {with_article(place)}"


def _head(noun):
    """Return the word that a number or an article would go with."""
    return _last(re.split(f" (?:{_JOINS}) ", noun)[0])


def _last(words):
    return words.replace("-", " ").split(" ")[-1]
