"""Questions about a scene, with answers of one or two words."""

import json
import pathlib
import re
from functools import partial
from typing import NamedTuple

from keras_bridgetower_drawings.training.reports import draw

from keras_bridgetower_photos.training import things
from keras_bridgetower_photos.training import words

WAYS = json.loads(pathlib.Path(__file__).with_suffix(".json").read_text())
COUNTS = ("1", "2", "3", "4")
SIDES = ("left", "middle", "right")
# In the background may be some of these, which no table says.
IN_BACKGROUNDS = frozenset(WAYS.pop("kinds in backgrounds"))


class Question(NamedTuple):
    """A question about a scene."""

    text: str
    answer: str
    sort: str  # One of `SORTS`.
    other_answers: tuple = ()  # What is right as well.
    wording: str = ""  # The text before words are put in.
    options: tuple = ()  # The answers that the text itself names, if any.

    def is_right(self, answer):
        return answer in (self.answer, *self.other_answers)


def answers(world):
    """Return the answers that training can teach, in a fixed order."""
    shown = [one for one in world.shown if one.split == "train"]
    found = ["yes", "no", *SIDES, *COUNTS, *things.COLORS]
    found += sorted({things.BROAD[one.kind] for one in shown})
    found += sorted({one.kind for one in shown})
    found += sorted({p.place for p in world.photographs if p.split == "train"})
    found += sorted({one.noun for one in shown})
    return [answer for answer in dict.fromkeys(found) if answer]


def questions(scene, rng, known=None):
    """Return a question of each sort that the scene allows, in chance order.

    With `known`, a set of answers, those that name others are left out.
    """
    found = []
    for ask in SORTS.values():
        choices = [
            question
            for question in ask(scene, rng)
            if known is None or {question.answer, *question.options} <= known
        ]
        if choices:
            question = draw(choices, rng)
            text = _dressed(question.text, rng)
            found.append(question._replace(text=text))
    return [found[n] for n in rng.permutation(len(found))]


def _nouns(scene, rng):
    def ask(way, own, plurals=(), **slots):
        slots |= _kinds(own)
        others = _others(own) + plurals
        return _ask(way, own.noun, "noun", rng, others=others, **slots)

    own = scene.placed[0].thing
    if scene.sort == "several":
        plurals = tuple(words.plural(name) for name in words.called(own))
        return [ask("noun of several", own, plurals)]
    if len(scene.placed) == 1:
        return [ask("noun of one", own)]
    sides = _by_side(scene).items()
    return [ask("noun by place", own, on=_on(side)) for side, own in sides]


def _kinds_asked(scene, rng):
    found = []
    for own, ref in _unnamed(scene, rng):
        slots = {"ref": ref, "broad": things.BROAD[own.kind]}
        others = tuple(n for n in words.called(own) if n != own.kind)
        found.append(_ask("kind", own.kind, "kind", rng, others, **slots))
    return found


def _broad_kinds(scene, rng):
    found = []
    # Drawn as often as they are right, so that a frequent one is no guess.
    pool = [draw(_pool(scene), rng) for _ in range(20)]
    pool = dict.fromkeys(things.BROAD[one.kind] for one in pool)
    for own, ref in _unnamed(scene, rng):
        broad = things.BROAD[own.kind]
        options = list(dict.fromkeys([broad, *pool]))[:4]
        options = tuple(str(option) for option in rng.permutation(options))
        *several, last = map(words.with_article, options)
        slots = {"ref": ref, "options": f"{', '.join(several)} or {last}"}
        asked = _ask("broad", broad, "broad", rng, **slots)
        found.append(asked._replace(options=options))
    return found


def _colors(scene, rng):
    found = [
        _ask("color", own.color, "color", rng, ref=ref)
        for own, ref in _referred(scene, rng)
        if own.color
    ]
    if scene.paper and rng.random() < 0.3:
        ref = _anything(scene, rng)
        found += [_ask("color of paper", scene.paper, "color", rng, ref=ref)]
    return found


def _counts(scene, rng):
    name, number = _countable(scene, rng)
    if not name:
        return []
    others = (words.NUMBERS[number],)
    slots = {"ns": words.plural(name)}
    return [_ask("count", str(number), "count", rng, others, **slots)]


def _positions(scene, rng):
    return [
        _ask("position", scene.position(number), "position", rng, ref=ref)
        for number, ref in _definite(scene, rng).items()
        if scene.position(number)
    ]


def _places(scene, rng):
    if scene.background is None or scene.sort == "before":
        return []
    ref = _anything(scene, rng)
    place = scene.background.place
    others = tuple(n for n in words.called(scene.background) if n != place)
    return [_ask("place", place, "place", rng, others, ref=ref)]


def _which(scene, rng, sort):
    """Ask which of two things it is, by nouns and, if they differ, by kinds."""
    first = scene.larger() if sort == "larger" else scene.front
    if first in (None, -1):
        return []
    one, other = (scene.placed[n].thing for n in (first, 1 - first))
    found = []
    for names in ((one.noun, other.noun), (one.kind, other.kind)):
        if names[0] == names[1]:
            continue
        a, b = (words.with_the(names[n]) for n in rng.permutation(2))
        asked = _ask(sort, names[0], sort, rng, a=a, b=b)
        found.append(asked._replace(options=names))
    return found


def _is_it(scene, rng, sort, name_of):
    """Ask about a thing in the scene or, as often, about one that is not.

    Both are drawn in the same way, and both must be askable, so each name is
    as often right as wrong.
    """
    own = draw(scene.placed, rng).thing
    pool = _pool(scene)
    if rng.random() < 0.5:
        broad = things.BROAD[own.kind]
        pool = [one for one in pool if things.BROAD[one.kind] == broad]
    other = draw(pool, rng)
    name, false = name_of(own, rng), name_of(other, rng)
    hidden = scene.background and {own.kind, other.kind} & IN_BACKGROUNDS
    apart = words.is_false(name, other) and all(
        words.is_false(false, placed.thing) for placed in scene.placed
    )
    if hidden or not apart:
        return []
    answer = rng.random() < 0.5
    return [_is(scene, sort, name if answer else false, answer, rng)]


def _a_name(thing, rng):
    names = words.names_of_one(thing)
    names = [name for name in names if not words.is_proper(name)]
    return str(draw([thing.noun] * 3 + names, rng))


def _is(scene, sort, name, answer, rng):
    if scene.sort == "several":
        found = _ask("is there", _yes(answer), sort, rng, a=words.plural(name))
        return found._replace(text=_as_plural(found.text))
    one = scene.sort == "photograph"
    one |= scene.sort == "alone" and rng.random() < 0.5
    way = "is this" if one else "is there"
    return _ask(way, _yes(answer), sort, rng, a=words.with_article(name))


def _is_color(scene, rng):
    colored = [(own, ref) for own, ref in _referred(scene, rng) if own.color]
    if not colored:
        return []
    own, ref = draw(colored, rng)
    colors = [other.color for other in scene.world.things if other.color]
    false = str(draw(colors, rng))
    if not words.is_false_color(false, own.color):
        return []
    answer = rng.random() < 0.5
    color = own.color if answer else false
    return [_ask("is color", _yes(answer), "is color", rng, ref=ref, c=color)]


def _is_relation(scene, rng):
    """Ask about left and right, depth or size, in a true or false order."""
    named = _definite(scene, rng)
    orders = [("is left", pair) for pair in scene.neighbors()]
    if scene.larger() is not None:
        first = scene.larger()
        orders.append(("is larger", (first, 1 - first)))
    if scene.front >= 0:
        orders.append(("is in front", (scene.front, 1 - scene.front)))
    if not orders:
        return []
    way, pair = draw(orders, rng)
    answer = rng.random() < 0.5
    a, b = (named[n] for n in pair)
    side = "left"
    if way == "is left" and rng.random() < 0.5:
        a, b, side = b, a, "right"
    if not answer:
        a, b = b, a
    slots = {"a": a, "b": b, "side": side}
    return [_ask(way, _yes(answer), "is relation", rng, **slots)]


def _is_count(scene, rng):
    if scene.sort != "several":
        return []
    thing, number = scene.placed[0].thing, len(scene.placed)
    name = str(draw([thing.noun, thing.kind], rng))
    answer = rng.random() < 0.5
    if not answer:
        number = draw([n for n in (2, 3, 4) if n != number], rng)
    slots = {"n": words.NUMBERS[number], "ns": words.plural(name)}
    return [_ask("is count", _yes(answer), "is count", rng, **slots)]


def _is_place(scene, rng):
    if scene.background is None:
        return []
    own = scene.background
    places = [p.place for p in scene.world.photographs if p.place]
    false = str(draw(places, rng))
    if not words.is_false(false, own):
        return []
    answer = rng.random() < 0.5
    place = own.place if answer else false
    slots = {
        "a": words.with_article(place),
        "at": words.at_place(place, rng),
        "ref": _anything(scene, rng),
    }
    return [_ask("is place", _yes(answer), "is place", rng, **slots)]


SORTS = {
    "noun": _nouns,
    "kind": _kinds_asked,
    "broad": _broad_kinds,
    "color": _colors,
    "count": _counts,
    "position": _positions,
    "place": _places,
    "larger": partial(_which, sort="larger"),
    "depth": partial(_which, sort="depth"),
    "is noun": partial(_is_it, sort="is noun", name_of=_a_name),
    "is kind": partial(_is_it, sort="is kind", name_of=lambda x, rng: x.kind),
    "is color": _is_color,
    "is relation": _is_relation,
    "is count": _is_count,
    "is place": _is_place,
}


def _ask(way, answer, sort, rng, others=(), **slots):
    wording = draw(WAYS[way], rng)
    return Question(wording.format(**slots), answer, sort, others, wording)


def _pool(scene):
    """Return what could have been shown instead."""
    return scene.world[scene.sort == "photograph"]


def _yes(answer):
    return "yes" if answer else "no"


def _others(thing):
    names = dict.fromkeys([*thing.names, thing.name])
    return tuple(name for name in names if name != thing.noun)


def _kinds(thing):
    broad, kind = things.BROAD[thing.kind], thing.kind
    if broad == "place":
        broad = kind
    several = {"broads": words.plural(broad), "kinds": words.plural(kind)}
    return {"broad": broad, "kind": kind, **several}


def _on(side):
    return "in the middle" if side == "middle" else f"on the {side}"


def _by_side(scene):
    """Return the things that a side identifies."""
    if not scene.neighbors():
        return {}
    found = {"left": scene.placed[0].thing, "right": scene.placed[-1].thing}
    if len(scene.placed) == 3:
        found["middle"] = scene.placed[1].thing
    return found


def _unnamed(scene, rng):
    """Return things, each with words for it that do not name its kind."""
    if scene.sort == "several":
        return []
    if len(scene.placed) == 1:
        return [(scene.placed[0].thing, str(draw(["this", "it"], rng)))]
    return [
        (own, f"{draw(['the one', 'the thing'], rng)} {_on(side)}")
        for side, own in _by_side(scene).items()
    ]


def _referred(scene, rng):
    named = [
        (scene.placed[number].thing, ref)
        for number, ref in _definite(scene, rng).items()
        if scene.sort != "several"
    ]
    return named if rng.random() < 0.6 else _unnamed(scene, rng) or named


def _definite(scene, rng):
    """Return by number how a thing is called: "the owl", "the bird"."""
    kinds = [placed.thing.kind for placed in scene.placed]
    found = {}
    for number, placed in enumerate(scene.placed):
        name = placed.thing.noun
        if kinds.count(placed.thing.kind) == 1 and rng.random() < 0.3:
            name = placed.thing.kind
        found[number] = words.with_the(name)
    return found


def _anything(scene, rng):
    if len(scene.placed) > 1:
        return "all this"
    return draw(list(_definite(scene, rng).values()), rng)


def _countable(scene, rng):
    """Return what can be counted in a scene, and how many there are."""
    shown = [placed.thing for placed in scene.placed]
    if scene.sort == "photograph":
        return "", 0
    first = draw(shown, rng)
    names = {first.kind: [o.kind for o in shown]}
    names[things.BROAD[first.kind]] = [things.BROAD[o.kind] for o in shown]
    if scene.sort in ("several", "alone"):
        names[first.noun] = [o.noun for o in shown]
    numbers = {
        name: own.count(name)
        for name, own in names.items()
        if words.is_countable(name) and name not in ("object", "place")
    }
    more = [name for name, number in numbers.items() if number > 1]
    # Of most things there is only one: rarely asked, so that "1" is no guess.
    if not numbers or (not more and rng.random() < 0.7):
        return "", 0
    name = str(draw(more if more and rng.random() < 0.8 else [*numbers], rng))
    return name, numbers[name]


def _as_plural(text):
    """Ask for several: "are there owls?"."""
    return re.sub("^(there )?is ", r"\1are ", text)


def _dressed(text, rng):
    """Draw a spelling, a capital letter, a question mark and a "please"."""
    text = words.spelled(text, rng)
    if rng.random() < 0.08:
        text = draw(WAYS["please"], rng).format(q=text)
        if "? " in text:
            text = text.replace("? ", ", ") + "?"
    if rng.random() < 0.2:
        text = text.rstrip("?")
    return text[0].upper() + text[1:] if rng.random() < 0.3 else text
