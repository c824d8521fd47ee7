"""Answer questions without a picture: the score that guessing gets."""

import collections

# How questions are grouped, from coarse to fine.
KEYS = {
    "sort": lambda question: question.sort,
    "wording": lambda question: (question.sort, question.wording),
    "text": lambda q: (q.sort, q.text.lower().strip(" ?.")),
}


def scores(train, test):
    """Return the share of `test` that each way of guessing gets right.

    "sort", "wording" and "text" guess the most frequent answer of the training
    questions in the same group, or as the way before where there is none.
    "options" guesses the one of the answers that a question names which is most
    often right where it is named.
    """
    guesses = [_frequent(train, key) for key in KEYS.values()]
    guesses.append(_options(train))
    found = {}
    for last, name in enumerate((*KEYS, "options")):
        right = 0
        for question in test:
            tried = (guess(question) for guess in guesses[last::-1])
            right += question.is_right(next(filter(None, tried), None))
        found[name] = 100 * right / len(test)
    return found


def _frequent(train, key):
    """Return a function that guesses the most frequent answer of a group."""
    counts = collections.defaultdict(collections.Counter)
    for question in train:
        counts[key(question)][question.answer] += 1
    best = {k: c.most_common(1)[0][0] for k, c in counts.items()}
    return lambda question: best.get(key(question))


def _options(train):
    """Return a function that guesses one of the answers in the question."""
    right, named = collections.Counter(), collections.Counter()
    for question in train:
        right[question.sort, question.answer] += 1
        named.update((question.sort, option) for option in question.options)

    def guess(question):
        def share(option):
            key = question.sort, option
            return right[key] / max(named[key], 1)

        return max(question.options, key=share, default=None)

    return guess
