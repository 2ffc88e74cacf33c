"""Everything that nano knows: questions in several wordings, each with its one answer."""

from __future__ import annotations

from dataclasses import dataclass

from .numbers import words
from .utterance import Utterance, sentence


@dataclass(frozen=True)
class Fact:
    """Wordings of a question, and its answer."""

    family: str
    questions: tuple[str, ...]
    answer: str

    def asked(self, wording: int) -> Utterance:
        return Utterance(self.questions[wording % len(self.questions)], self.family, self.answer)


CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "England": "London",
    "Japan": "Tokyo", "Russia": "Moscow", "Greece": "Athens", "Poland": "Warsaw", "Portugal": "Lisbon",
    "Austria": "Vienna", "Sweden": "Stockholm", "Norway": "Oslo", "Egypt": "Cairo", "Cuba": "Havana",
    "Ireland": "Dublin", "Hungary": "Budapest", "Belgium": "Brussels", "Kenya": "Nairobi", "Peru": "Lima",
}  # fmt: skip
COLOURS = {
    "grass": "green", "snow": "white", "the sky": "blue", "blood": "red", "a banana": "yellow", "coal": "black",
    "a carrot": "orange", "chocolate": "brown", "an elephant": "grey", "a lemon": "yellow", "a tomato": "red",
    "milk": "white", "a frog": "green", "the sun": "yellow", "the sea": "blue",
}  # fmt: skip
OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("fast", "slow"), ("old", "young"), ("long", "short"), ("day", "night"),
    ("black", "white"), ("happy", "sad"), ("rich", "poor"), ("open", "closed"), ("full", "empty"), ("early", "late"),
    ("left", "right"), ("up", "down"), ("hard", "soft"),
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
LEGS = {"dog": 4, "cat": 4, "bird": 2, "spider": 8, "horse": 4, "fish": 0, "bee": 6, "cow": 4}
SPEAKS = {"dog": "barks", "cat": "meows", "cow": "moos", "duck": "quacks", "horse": "neighs", "pig": "grunts"}
CHAT = (
    Fact("chat", ("Hello.", "Hello, nano.", "Good morning.", "Good evening."), "Hello! How can I help you?"),
    Fact(
        "chat",
        ("Who are you?", "What are you?", "What is your name?"),
        "I am nano, a very small model that listens.",
    ),
    Fact("chat", ("How are you?", "How are you today?"), "I am fine, thank you."),
    Fact("chat", ("Thank you.", "Thank you very much."), "You are welcome."),
    Fact("chat", ("Goodbye.", "Good night.", "See you tomorrow."), "Goodbye!"),
    Fact("chat", ("Can you hear me?", "Do you hear me?"), "Yes, I can hear you."),
    Fact("chat", ("What can you do?", "How can you help me?"), "I can name sounds, write down simple speech "
        "and answer simple questions."),
)  # fmt: skip


def _arithmetic() -> list[Fact]:
    facts = []
    for first in range(11):
        for second in range(11):
            facts.append(_sum(f"{words(first)} plus {words(second)}", words(first + second)))
            if second <= first:
                facts.append(_sum(f"{words(first)} minus {words(second)}", words(first - second)))
    return facts


def _sum(term: str, result: str) -> Fact:
    return Fact("arithmetic", (f"What is {term}?", f"How much is {term}?"), sentence(f"{term} is {result}"))


def _capitals() -> list[Fact]:
    facts = []
    for country, city in CAPITALS.items():
        asked = (f"What is the capital of {country}?", f"Which city is the capital of {country}?")
        facts.append(Fact("capital", asked, f"The capital of {country} is {city}."))
        facts.append(Fact("country", (f"In which country is {city}?", f"Where is {city}?"), f"{city} is in {country}."))
    return facts


def _colours() -> list[Fact]:
    return [
        Fact(
            "colour",
            (f"What colour is {thing}?", f"Tell me the colour of {thing}."),
            sentence(f"{thing} is {colour}"),
        )
        for thing, colour in COLOURS.items()
    ]


def _opposites() -> list[Fact]:
    both = [*OPPOSITES, *((two, one) for one, two in OPPOSITES)]
    return [
        Fact("opposite", (f"What is the opposite of {one}?",), f"The opposite of {one} is {two}.") for one, two in both
    ]


def _calendar() -> list[Fact]:
    facts = []
    for kind, names in (("day", DAYS), ("month", MONTHS)):
        for earlier, later in zip(names, names[1:] + names[:1], strict=True):
            after = (f"What {kind} comes after {earlier}?", f"Which {kind} is after {earlier}?")
            before = (f"What {kind} comes before {later}?", f"Which {kind} is before {later}?")
            facts.append(Fact("calendar", after, f"{later} comes after {earlier}."))
            facts.append(Fact("calendar", before, f"{earlier} comes before {later}."))
    return facts


def _animals() -> list[Fact]:
    facts = [
        Fact("animal", (f"How many legs does a {name} have?",), f"A {name} has {words(n) if n else 'no'} legs.")
        for name, n in LEGS.items()
    ]
    return facts + [
        Fact("animal", (f"What does a {name} do?", f"What sound does a {name} make?"), f"A {name} {sound}.")
        for name, sound in SPEAKS.items()
    ]


FACTS: tuple[Fact, ...] = (
    *_arithmetic(), *_capitals(), *_colours(), *_opposites(), *_calendar(), *_animals(), *CHAT,
)  # fmt: skip
FAMILIES: dict[str, tuple[Fact, ...]] = {
    family: tuple(fact for fact in FACTS if fact.family == family)
    for family in dict.fromkeys(fact.family for fact in FACTS)
}
