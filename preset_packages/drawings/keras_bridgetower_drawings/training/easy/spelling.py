"""Words of the templates that have an American and a British spelling."""

SPELLINGS = {
    "color": "colour",
    "gray": "grey",
    "center": "centre",
    "disk": "disc",
}


def american(text, words=SPELLINGS):
    return _respelled(text, {SPELLINGS[word]: word for word in words})


def british(text, words=SPELLINGS):
    return _respelled(text, {word: SPELLINGS[word] for word in words})


def both(text, words=SPELLINGS):
    spelled = american(text, words), british(text, words)
    return tuple(dict.fromkeys(spelled))


def _respelled(text, words):
    for old, new in words.items():
        text = text.replace(old, new)
        text = text.replace(old.capitalize(), new.capitalize())
    return text
