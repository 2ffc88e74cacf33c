"""Multiple choice: how an answer names an option, as each benchmark's authors read it and as we do.

Nothing is guessed: what names no option is wrong, and beside it stands what a random guess for those would have given.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..example import Prediction
from ..task import Task
from .judgement import Judgement
from .labels import fold
from .measure import Measure, Scores, accuracy

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
Parser = Callable[[str], str | None]
Judgements = Mapping[str, Sequence[Judgement]]


def string_match(answer: str, prediction: str, choices: Sequence[str]) -> bool:
    """MMAU's and MMAR's: all words of the answer are in the prediction, and none that only other choices have."""
    said, right = _words(prediction), _words(answer)
    others = [_words(choice) for choice in choices]
    wrong = set().union(*(words - right for words in others if words != right))
    return bool(said) and right <= said and not said & wrong


def _words(text: str) -> set[str]:
    return set(re.findall(r"\b\w+\b", text.lower()))


def airbench_letter(text: str) -> str | None:
    """AIR-Bench's and MMSU's: the first character, else the last but one, where it is one of A to D."""
    text = text.strip().replace("\n", "")
    if not text or text == "None":
        return None
    if text[0] in "ABCD":
        return text[0]
    return text[-2] if len(text) > 1 and text[-2] in "ABCD" else None


_LETTER_FORMS = (
    r"^\W*([{0}{1}])(?!\W+(?:or|and)\W+[{0}{1}]\b)(?:[.,:)\]*]|\s*$|\s*\n)",  # "B.", "(b) a dog", "**B**"
    r"\b(?i:answer|option|choice|choose|select|pick)\b(?:\s+(?!is\b)\w+)?\s*(?:is|would be|:|=)?\s*[\"'“(*\[]*"
    r"([{0}])\b(?!\s+[a-z])",
    r"\(([{0}])\)",
)
_LAST_WORD = (r"\b([{0}])\W*$",)


def parse_choice(text: str, choices: Sequence[str], *, count: int = 0) -> int | None:
    """The number of the option that an answer names, by its text or by its letter; None where it names none, or two.

    Without `choices` (they are in the clip) letters only, of `count` options.
    """
    text = re.sub(r"<\|.*?\|>", " ", text).strip()
    folded = [fold(choice) for choice in choices]
    if (said := fold(text)) in folded:
        return folded.index(said)
    letters = LETTERS[: len(choices) or count]
    if by_letter := _letters_named(text, letters, _LETTER_FORMS):
        return letters.index(by_letter.pop()) if len(by_letter) == 1 else None
    places = [_last_place(choice, said) for choice in folded]
    named = [number for number, place in enumerate(places) if place is not None and not _inside(number, places, folded)]
    if named:
        return named[0] if len(named) == 1 else None
    last = _letters_named(text, letters, _LAST_WORD)
    return letters.index(last.pop()) if last else None


def parse_letter(text: str, letters: str) -> str | None:
    """The letter of an answer like "B.", "(B) a dog", "the answer is B"; None where there is none, or there are two."""
    named = _letters_named(text, letters, (*_LETTER_FORMS, *_LAST_WORD))
    return named.pop() if len(named) == 1 else None


def _letters_named(text: str, letters: str, forms: Sequence[str]) -> set[str]:
    """Those of the first form that occurs."""
    for form in forms if letters else ():
        if found := {letter.upper() for letter in re.findall(form.format(letters, letters.lower()), text)}:
            return found
    return set()


def _last_place(choice: str, text: str) -> tuple[int, int] | None:
    matches = list(re.finditer(rf"(?<!\w){re.escape(choice)}(?!\w)", text)) if choice else []
    return matches[-1].span() if matches else None


def _inside(number: int, places: Sequence[tuple[int, int] | None], choices: Sequence[str]) -> bool:
    """Whether an option is only a part of a longer one that is named: "rock" of "punk rock"."""
    start, end = places[number] or (0, 0)
    return any(
        other is not None and other[0] <= start and end <= other[1] and len(choices[at]) > len(choices[number])
        for at, other in enumerate(places)
    )


def right_choice(prediction: Prediction) -> int | None:
    """The right option's number: the reference's text among the choices, else its letter; None where it is neither."""
    reference, choices = prediction.reference or "", prediction.choices
    if reference in choices:
        return choices.index(reference)
    letter = fold(reference).strip("()").upper()
    letters = LETTERS[: len(choices) or len(LETTERS)]
    return letters.index(letter) if len(letter) == 1 and letter in letters else None


def skip_choice(prediction: Prediction) -> str | None:
    """Why a row cannot be scored."""
    if prediction.reference is None:
        return "no reference"
    return "reference is none of the choices" if right_choice(prediction) is None else None


def parsed_measures(
    found: Sequence[int | None], right: Sequence[int | None], counts: Sequence[int]
) -> tuple[Measure, ...]:
    """Unparsed is wrong; only what was parsed; and what guessing among `counts` options gives for the rest."""
    hits = [a is not None and a == b for a, b in zip(found, right, strict=True)]
    parsed = [answer is not None for answer in found]
    guessed = [float(hit) if was else 1 / count for hit, was, count in zip(hits, parsed, counts, strict=True)]
    return (
        accuracy("accuracy_parsed", hits),
        accuracy("accuracy_on_parsed", hits, parsed),
        accuracy("accuracy_with_random", guessed),
    )


def choice_details(found: Sequence[int | None], counts: Sequence[int]) -> Callable[[Sequence[int]], dict[str, Any]]:
    def details(rows: Sequence[int]) -> dict[str, Any]:
        if not rows:
            return {"unparsed": 0}
        named = Counter(LETTERS[answer] for row in rows if (answer := found[row]) is not None)
        guess = sum(1 / counts[row] for row in rows) / len(rows)
        unparsed = sum(found[row] is None for row in rows)
        return {"unparsed": unparsed, "random_guess": round(guess, 6), "named": dict(sorted(named.items()))}

    return details


def column_of(predictions: Sequence[Prediction], *names: str) -> list[str]:
    """Each row's text in the first of these columns that it has; "" where it has none."""
    texts = []
    for prediction in predictions:
        value = next((prediction.columns[name] for name in names if prediction.columns.get(name)), "")
        texts.append(", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))
    return texts


def match_by_words(task: Task, predictions: Sequence[Prediction], judgements: Judgements) -> Scores:
    """MMAU and MMAR: the authors' `string_match`, our parser, and letters alone."""
    right = [right_choice(prediction) for prediction in predictions]
    found = [parse_choice(prediction.text, prediction.choices) for prediction in predictions]
    counts = [len(prediction.choices) for prediction in predictions]
    matched = [string_match(p.choices[right[row] or 0], p.text, p.choices) for row, p in enumerate(predictions)]
    letters = [parse_letter(p.text, LETTERS[: len(p.choices)]) for p in predictions]
    by_letter = [a is not None and b is not None and a == LETTERS[b] for a, b in zip(letters, right, strict=True)]
    names = (
        ("modality", "category", "sub-category")
        if task.id == "mmar"
        else ("task", "category", "sub-category", "difficulty")
    )
    return Scores(
        (
            accuracy("accuracy_string_match", matched),
            *parsed_measures(found, right, counts),
            accuracy("accuracy_letter", by_letter),
        ),
        details=choice_details(found, counts),
        by={name: column_of(predictions, name, name.replace("-", "")) for name in names},
        read_as=[None if answer is None else p.choices[answer] for answer, p in zip(found, predictions, strict=True)],
    )
