"""The frames of sentences about the world's pictures, with slots for words.

A frame says nothing of its own: what a sentence claims depends on the words in
its slots, and on whether its table is one of "not".
"""

# Words that stand for each other, wherever a frame has their slot.
SLOTS = {
    "it": ("it", "it", "the shape", "the thing", "the object", "this", "that"),
    "thing": ("shape", "shape", "thing", "object", "figure", "form"),
    "picture": ("picture", "picture", "image", "photo", "drawing"),
    "see": (
        "i see",
        "you see",
        "we see",
        "you can see",
        "i can see",
        "one sees",
    ),
    "not see": ("i see no", "you see no", "i can see no", "one sees no"),
    "cannot see": ("i do not see", "i cannot see", "you cannot see"),
}
CONTRACTIONS = {
    **{"it is": "it's", "that is": "that's", "there is": "there's"},
    **{"is not": "isn't", "do not": "don't", "does not": "doesn't"},
    **{"cannot": "can't", "are not": "aren't"},
}
# Of what an adjective says. {adj} is the adjective.
IS = (
    *(
        "{it} is {adj}",
        "{it} is {adj}",
        "{it} is {adj}",
        "{adj}",
        "{it} looks {adj}",
    ),
    *("there is something {adj}", "there is something {adj} in the {picture}"),
    *("{see} something {adj}", "the {picture} shows something {adj}"),
    *("the {thing} in the {picture} is {adj}", "what you see is {adj}"),
    *("something is {adj}", "something {adj}", "the {thing} is {adj}"),
    *("here is something {adj}", "there is something {adj} here"),
)
IS_NOT = (
    *(
        "{it} is not {adj}",
        "{it} is not {adj}",
        "{it} is not {adj}",
        "not {adj}",
    ),
    *("there is nothing {adj}", "there is nothing {adj} in the {picture}"),
    *("{see} nothing {adj}", "the {picture} shows nothing {adj}"),
    *("the {thing} in the {picture} is not {adj}", "what you see is not {adj}"),
    *("nothing is {adj}", "nothing {adj} here", "the {thing} is not {adj}"),
    *("{it} does not look {adj}", "there is not anything {adj}"),
)
# Ways that only one attribute has.
IS_OF = {
    "colour": (
        *("the colour is {adj}", "its colour is {adj}", "the color is {adj}"),
        *("{it} is {adj} in colour", "{it} has the colour {adj}"),
        *("the colour of the {thing} is {adj}", "its color is {adj}"),
        *("{it} is painted {adj}", "{it} is coloured {adj}"),
        *("{it} has a {adj} colour", "the {picture} shows the colour {adj}"),
    ),
    "size": ("the size is {adj}", "its size is {adj}", "{it} is {adj} in size"),
    "shape": ("its shape is {adj}", "{it} has a {adj} shape"),
}
IS_NOT_OF = {
    "colour": (
        *("the colour is not {adj}", "its colour is not {adj}"),
        *("the color is not {adj}", "{it} does not have the colour {adj}"),
        *(
            "{it} is not painted {adj}",
            "the colour of the {thing} is not {adj}",
        ),
    ),
    "size": ("the size is not {adj}", "its size is not {adj}"),
    "shape": ("its shape is not {adj}", "{it} does not have a {adj} shape"),
}
# Of what a noun says: {a} is "a blue circle", {noun} and {nouns} are without
# the article.
THERE = (
    *(
        "{a}",
        "{a}",
        "there is {a}",
        "there is {a}",
        "{it} is {a}",
        "{it} is {a}",
    ),
    *("there is {a} in the {picture}", "there is {a} here", "here is {a}"),
    *("{see} {a}", "{see} {a} in the {picture}", "the {picture} shows {a}"),
    *("the {picture} contains {a}", "the {picture} has {a} in it"),
    *("this is {a}", "this {picture} shows {a}", "a {picture} of {a}"),
    *("{a} is in the {picture}", "{a} can be seen", "{noun}", "{it} shows {a}"),
    *(
        "what you see is {a}",
        "the {thing} is {a}",
        "this is a {picture} of {a}",
    ),
)
NOT_THERE = (
    *(
        "no {noun}",
        "no {noun} here",
        "there is no {noun}",
        "there is no {noun}",
    ),
    *("{it} is not {a}", "{it} is not {a}", "this is not {a}"),
    *("there is no {noun} in the {picture}", "there is no {noun} here"),
    *("there are no {nouns}", "{not see} {noun}", "{cannot see} {a}"),
    *("the {picture} does not show {a}", "the {picture} shows no {noun}"),
    *("the {picture} does not contain {a}", "what you see is not {a}"),
    *("no {noun} in the {picture}", "there is not {a}", "not {a}"),
    *("this is not a {picture} of {a}", "the {thing} is not {a}"),
)
# Of where the shape is.
LIES = (
    *("{it} is {place}", "{it} is {place}", "{it} lies {place}", "{place}"),
    *(
        "the {thing} is {place}",
        "there is something {place}",
        "{it} sits {place}",
    ),
    *("the {thing} lies {place}", "{it} can be found {place}"),
    *("{see} something {place}", "{place} there is something"),
)
LIES_NOT = (
    *(
        "{it} is not {place}",
        "{it} is not {place}",
        "{it} does not lie {place}",
    ),
    *("the {thing} is not {place}", "there is nothing {place}", "not {place}"),
    *("nothing is {place}", "{see} nothing {place}"),
)
# Of a noun and where it is.
LIES_THERE = (
    *(
        "{a} {place}",
        "there is {a} {place}",
        "{a} is {place}",
        "{a} lies {place}",
    ),
    *("{place} there is {a}", "{place} is {a}", "{see} {a} {place}"),
    *("the {picture} shows {a} {place}", "{it} is {a} {place}"),
    *("{place} {see} {a}", "this is {a} {place}", "here is {a} {place}"),
)
# True of all pictures, and of none.
ONE_SHAPE = (
    *(
        "there is one {thing}",
        "there is a {thing}",
        "there is a single {thing}",
    ),
    *("there is exactly one {thing}", "{see} a {thing}", "only one {thing}"),
    *("there is something in the {picture}", "the {picture} shows one {thing}"),
    *("the {picture} is not empty", "there are no two {thing}s"),
)
MANY_SHAPES = (
    *("there are two {thing}s", "there are three {thing}s", "two {thing}s"),
    *("there is no {thing}", "there is nothing", "the {picture} is empty"),
    *("there are many {thing}s", "{see} several {thing}s", "{see} nothing"),
    *("there are some {thing}s", "the {picture} shows two {thing}s"),
)
# What no picture of this world tells.
UNTOLD = (
    *(
        "{it} is heavy",
        "{it} is made of wood",
        "{it} is expensive",
        "{it} is old",
    ),
    *("{it} was drawn by a child", "{it} is my favourite", "{it} is cold"),
    *("{it} was made yesterday", "somebody likes the {thing}", "{it} is soft"),
    *("{it} was painted by hand", "{it} belongs to me", "{it} is new"),
    *("the {thing} is moving", "{it} is made of paper", "the artist was tired"),
    *("the {picture} was made in spring", "{it} weighs a kilogram"),
    *("the {picture} was made by a computer", "{it} was sold", "{it} is warm"),
)
