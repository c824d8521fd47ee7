"""True captions of a scene, and captions with one error."""

import json
import pathlib

from keras_bridgetower_drawings.training.reports import draw

from keras_bridgetower_photos.training import things
from keras_bridgetower_photos.training import words

_WAYS = json.loads(pathlib.Path(__file__).with_suffix(".json").read_text())
# How often a true caption mentions an aspect.
SAID = {
    **{"noun": 0.9, "color": 0.45, "size": 0.4, "position": 0.5},
    **{"larger": 0.6, "depth": 0.6, "count": 1.0, "place": 0.6, "paper": 0.4},
}
# A caption mentions one of these.
RELATIONS = ("position", "larger", "depth")
_COLORS = {*things.COLORS, "grey"}
SIZES = {"large": ("large", "big"), "small": ("small", "little")}
_SIZE_WORDS = {word for ways in SIZES.values() for word in ways}


def captions(scene, rng, number=4):
    """Return several true captions, the first one short."""
    short = tell(scene, {"noun", "count"}, rng)
    texts = [tell(scene, _some(scene, rng), rng) for _ in range(number - 1)]
    return list(dict.fromkeys([short, *texts]))


def wrong_caption(scene, rng):
    """Return a caption that is false in one respect, and true in the others."""
    changes = {name: _CHANGES[name] for name in sorted(aspects(scene))}
    names = list(rng.permutation(list(changes)))
    for name in names:
        changed = changes[name](scene, rng)
        if changed is not None:
            mentioned = _some(scene, rng) - {*RELATIONS, "size"}
            return tell(changed, mentioned | {"noun", str(name)}, rng)
    raise ValueError(f"No aspect of this scene can be changed: {names}")


def aspects(scene):
    """Return the aspects that a scene has, of the names in `SAID`."""
    numbers = range(len(scene.placed))
    found = {
        "noun": True,
        "color": any(placed.thing.color for placed in scene.placed),
        "size": any(scene.size(n) for n in numbers) and len(numbers) < 3,
        "position": bool(scene.neighbors()) or _side(scene) != "",
        "larger": scene.larger() is not None,
        "depth": scene.front >= 0,
        "count": scene.sort == "several",
        "place": scene.background is not None,
        "paper": scene.paper != "",
    }
    return {name for name, here in found.items() if here}


def tell(scene, mentioned, rng):
    """Return a caption that mentions some aspects."""
    mentioned = mentioned & aspects(scene) | (mentioned & {"noun"})
    text = _things(scene, mentioned, rng)
    if "place" in mentioned:
        place = scene.background.place
        after = " after depth" if "depth" in mentioned else ""
        way = _way("place" + after, rng)
        at, a = words.at_place(place, rng), words.with_article(place)
        text = way.format(x=text, at=at, a=a)
    elif "paper" in mentioned:
        color, a = scene.paper, words.with_article(scene.paper)
        text = _way("paper", rng).format(x=text, c=color, a=a)
    text = words.spelled(text, rng)
    if rng.random() < 0.2:
        text = text[0].upper() + text[1:]
    return text + "." if rng.random() < 0.15 else text


def _some(scene, rng):
    """Draw what to say of a scene."""
    # Sorted, as the order of a set differs between processes.
    names = sorted(aspects(scene))
    mentioned = {name for name in names if rng.random() < SAID[name]}
    relations = sorted(mentioned & set(RELATIONS))
    if relations:
        mentioned -= set(relations) - {relations[rng.integers(len(relations))]}
    return mentioned


def _things(scene, mentioned, rng):
    """Return a text about the things and their relation."""
    if scene.sort == "several":
        return _way("many leads", rng).format(x=_counted(scene, mentioned, rng))
    unnamed = _unnamed(scene, rng) if "noun" not in mentioned else -1
    phrases = [
        phrase(scene, number, mentioned, rng, number != unnamed)
        for number in range(len(scene.placed))
    ]
    if len(phrases) == 1:
        return _one_thing(scene, phrases[0], mentioned, rng)
    if len(phrases) > 2:
        return _row(phrases, "position" in mentioned, rng)
    relation = next((r for r in RELATIONS if r in mentioned), None)
    if relation is None:
        apart = scene.sort != "before" and rng.random() < 0.4
        way = _way("together" + ", apart" * apart, rng)
        return _lead(way, rng).format(a=phrases[0], b=phrases[1])
    firsts = {"position": 0, "larger": scene.larger(), "depth": scene.front}
    first = firsts[relation]
    a, b = phrases[first], phrases[1 - first]
    if unnamed >= 0 or rng.random() < 0.7:
        return _lead(_way(relation, rng), rng).format(a=a, b=b)
    one, other = (scene.placed[n].thing.noun for n in (first, 1 - first))
    way = _way(f"{relation}, told", rng)
    return way.format(a=a, b=b, A=words.with_the(one), B=words.with_the(other))


def _one_thing(scene, text, mentioned, rng):
    side = _side(scene) if "position" in mentioned else ""
    if side:
        way = _way("middle" if side == "middle" else "side", rng)
        return _lead(way, rng).format(x=text, side=side)
    share = scene.placed[0].length / len(scene.picture)
    if scene.sort == "alone" and share > 0.8 and rng.random() < 0.3:
        return _way("close", rng).format(x=text)
    return _lead("{x}", rng).format(x=text)


def _row(phrases, ordered, rng):
    if ordered and len(phrases) == 3 and rng.random() < 0.5:
        a, b, c = phrases
        return _lead(_way("between", rng), rng).format(a=a, b=b, c=c)
    if not ordered:
        phrases = [phrases[n] for n in rng.permutation(len(phrases))]
    together = f"{', '.join(phrases[:-1])} and {phrases[-1]}"
    number = words.NUMBERS[len(phrases)]
    way = _way("list in order" if ordered else "list", rng)
    return _lead(way, rng).format(list=together, number=number)


def phrase(scene, number, mentioned, rng, named=True):
    """Return a phrase for a thing: "a small brown owl"."""
    thing = scene.placed[number].thing
    if not named:
        name = _paraphrase(thing, len(mentioned) > 0, rng)
    else:
        names = words.names_of_one(thing)
        name = str(draw([thing.noun] * 3 + names[1:2] + names[1:], rng))
        if words.is_proper(name):
            way = _way("own name", rng)
            a = words.with_article(thing.noun)
            return way.format(name=name, a=a) if name != thing.noun else a
    return _described(name, _adjectives(scene, number, name, mentioned, rng))


def _described(name, adjectives):
    """Add adjectives to a noun: "something red to eat"."""
    first, _, rest = name.partition(" ")
    text = " ".join([*adjectives, rest])
    if first == "something":
        parts = first, " and ".join(adjectives), rest
        return " ".join(word for word in parts if word)
    if first == "some":
        return f"{first} {text}"
    if first in ("a", "an"):
        return words.with_article(text, "thing")
    return words.with_article(" ".join([*adjectives, name]), name)


def _adjectives(scene, number, name, mentioned, rng):
    found = []
    size = scene.size(number)
    if "size" in mentioned and size and not _SIZE_WORDS & set(name.split(" ")):
        found.append(str(draw(SIZES[size], rng)))
    color = scene.placed[number].thing.color
    if "color" in mentioned and color and not _COLORS & set(name.split(" ")):
        found.append(color)
    return found


def _counted(scene, mentioned, rng):
    thing = scene.placed[0].thing
    names = [thing.noun, *words.names_of_one(thing)]
    name = str(draw(names, rng)) if "noun" in mentioned else thing.kind
    if not words.is_countable(name) or words.is_proper(name):
        name = thing.noun
    color = _adjectives(scene, 0, name, mentioned - {"size"}, rng)
    number = words.NUMBERS[len(scene.placed)]
    return " ".join([number, *color, words.plural(name)])


def _unnamed(scene, rng):
    """Draw the number of a thing with a unique broad kind, or -1."""
    broad = [things.BROAD[placed.thing.kind] for placed in scene.placed]
    alone = [n for n, one in enumerate(broad) if broad.count(one) == 1]
    return draw(alone, rng) if alone else -1


def _paraphrase(thing, vague, rng):
    broad = things.BROAD[thing.kind]
    ways = [words.with_article(thing.kind)]
    ways += words.PARAPHRASES.get(thing.kind, [])
    if vague:
        ways += words.PARAPHRASES.get(broad, [])
    return str(draw(ways, rng))


def _side(scene):
    return scene.position(0) if len(scene.placed) == 1 else ""


def _lead(way, rng):
    """Lead in a way of telling, unless it begins with words of its own."""
    own = not way.startswith("{") or way.startswith("{number}")
    if own or rng.random() < 0.4:
        return way
    return _way("leads", rng).replace("{x}", way)


def _way(name, rng):
    return draw(_WAYS[name], rng)


def _with_things(scene, new):
    """Return a scene with other things in the same boxes."""
    placed = tuple(
        placed._replace(thing=thing)
        for placed, thing in zip(scene.placed, new, strict=True)
    )
    return scene._replace(placed=placed)


def _with_other_noun(scene, rng):
    """Call a thing by the noun of another one, if possible of its kind."""
    present = [placed.thing for placed in scene.placed]
    n = int(rng.integers(len(present)))
    other = _other_thing(scene, present, present[n], rng)
    if other is None:
        return None
    other = present[n]._replace(noun=other.noun, name=other.noun, names=())
    if scene.sort == "several":
        return _with_things(scene, [other] * len(present))
    return _with_things(scene, [*present[:n], other, *present[n + 1 :]])


def _other_thing(scene, present, own, rng):
    pool = scene.world[scene.sort == "photograph"]
    pool = [pool[n] for n in rng.permutation(len(pool))]
    broad = things.BROAD[own.kind]

    def unlike(one):
        return (one.kind != own.kind) + (things.BROAD[one.kind] != broad)

    # The sort is stable: equals stay in random order.
    for other in sorted(pool, key=unlike):
        if scene.sort == "several" and not words.is_countable(other.noun):
            continue
        if all(words.is_false(other.noun, thing) for thing in present):
            return other
    return None


def _with_other_color(scene, rng):
    present = [placed.thing for placed in scene.placed]
    own = draw([thing for thing in present if thing.color], rng)
    false = [c for c in things.COLORS if words.is_false_color(c, own.color)]
    other = own._replace(color=draw(false, rng), name=own.noun, names=())
    return _with_things(
        scene, [other if thing is own else thing for thing in present]
    )


def _exchanged(scene, rng):
    """Exchange two things, or move a single one to the other side."""
    side = len(scene.picture)
    if len(scene.placed) == 1:
        placed = scene.placed[0]
        left, top, right, bottom = placed.box
        box = (side - right, top, side - left, bottom)
        if scene.position(0) == "middle":
            return None
        return scene._replace(placed=(placed._replace(box=box),))
    present = [placed.thing for placed in scene.placed]
    one = int(rng.integers(len(present) - 1))
    present[one], present[one + 1] = present[one + 1], present[one]
    return _with_things(scene, present)


def _with_other_count(scene, rng):
    counts = [n for n in (2, 3, 4) if n != len(scene.placed)]
    return scene._replace(placed=scene.placed[:1] * draw(counts, rng))


def _with_other_place(scene, rng):
    own = scene.background
    places = {photograph.place for photograph in scene.world.photographs} - {""}
    false = sorted(place for place in places if words.is_false(place, own))
    if not false:
        return None
    return scene._replace(background=own._replace(place=draw(false, rng)))


def _with_other_paper(scene, rng):
    false = [c for c in things.COLORS if words.is_false_color(c, scene.paper)]
    return scene._replace(paper=draw(false, rng))


def _with_other_front(scene, rng):
    return scene._replace(front=1 - scene.front)


def _unchanged(scene, rng):
    return None


_CHANGES = {
    "noun": _with_other_noun,
    "color": _with_other_color,
    "size": _unchanged,
    "position": _exchanged,
    "larger": _exchanged,
    "depth": _with_other_front,
    "count": _with_other_count,
    "place": _with_other_place,
    "paper": _with_other_paper,
}
