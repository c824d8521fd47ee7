"""Answer questions without a picture: the score that guessing gets."""

import collections


def scores(train, test):
    """Return by way of guessing the share of `test` that it gets right.

    Guessed is what is answered most often in `train` to questions of the same
    "sort", of the same "wording", or with the same "text"; what is not found
    there is guessed by the way before it. Where a question names what can be
    answered, the last way, "options", guesses that one of them which is the
    answer in the largest share of the questions that name it.
    """
    ways = [_Frequent(train, key) for key in (_sort, _wording, _text)]
    ways.append(_Options(train))
    names = ("sort", "wording", "text", "options")
    found = {}
    for last, name in enumerate(names):
        right = 0
        for question in test:
            guesses = (way.guess(question) for way in ways[last::-1])
            guess = next((guess for guess in guesses if guess), None)
            right += guess in (question.answer, *question.other_answers)
        found[name] = 100 * right / len(test)
    return found


class _Frequent:
    """Guesses the most frequent answer of questions with the same key."""

    def __init__(self, train, key):
        self.key = key
        counts = collections.defaultdict(collections.Counter)
        for question in train:
            counts[key(question)][question.answer] += 1
        self.best = {k: c.most_common(1)[0][0] for k, c in counts.items()}

    def guess(self, question):
        return self.best.get(self.key(question))


class _Options:
    """Guesses one of the answers that a question names."""

    def __init__(self, train):
        self.right, self.named = collections.Counter(), collections.Counter()
        for question in train:
            self.right[question.sort, question.answer] += 1
            for option in question.options:
                self.named[question.sort, option] += 1

    def guess(self, question):
        def share(option):
            key = question.sort, option
            return self.right[key] / max(self.named[key], 1)

        return max(question.options, key=share, default=None)


def _sort(question):
    return question.sort


def _wording(question):
    return question.sort, question.wording


def _text(question):
    return question.sort, question.text.lower().strip(" ?.")
