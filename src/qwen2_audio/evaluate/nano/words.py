"""The names of each kind of sound: everything that nano can say about it."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """The words of one kind. `phrases` fit after "I hear" and after "the sound of"."""

    noun: str  # fits after "Is it"
    phrases: tuple[str, ...]
    captions: tuple[str, ...]
    keywords: tuple[str, ...]  # beginnings of words that name this kind and no other


WORDS = {
    "dog": Words("a dog", ("a dog barking", "a barking dog"), ("A dog barks.", "A dog is barking."), ("dog", "bark")),
    "cat": Words("a cat", ("a cat meowing", "a meowing cat"), ("A cat meows.", "A cat is meowing."), ("cat", "meow")),
    "bird": Words("a bird", ("a bird singing", "birdsong"), ("A bird sings.", "A bird is singing."), ("bird",)),
    "cricket": Words(
        "a cricket",
        ("crickets chirping", "a cricket chirping"),
        ("A cricket chirps.", "Crickets are chirping."),
        ("cricket",),
    ),
    "rain": Words("rain", ("rain falling", "falling rain"), ("Rain is falling.", "It is raining."), ("rain",)),
    "wind": Words(
        "the wind",
        ("wind blowing", "the wind howling"),
        ("The wind is blowing.", "Wind howls in gusts."),
        ("wind",),
    ),
    "thunder": Words("thunder", ("thunder", "thunder rolling"), ("Thunder rolls.", "Thunder rumbles."), ("thunder",)),
    "water": Words(
        "water",
        ("water bubbling", "bubbling water"),
        ("Water is bubbling.", "Water bubbles."),
        ("water", "bubbl"),
    ),
    "siren": Words("a siren", ("a siren", "a siren wailing"), ("A siren wails.", "A siren is wailing."), ("siren",)),
    "alarm": Words(
        "an alarm",
        ("an alarm beeping", "a beeping alarm"),
        ("An alarm beeps.", "An alarm is beeping."),
        ("alarm", "beep"),
    ),
    "phone": Words(
        "a telephone",
        ("a telephone ringing", "a phone ringing"),
        ("A telephone rings.", "A phone is ringing."),
        ("phone", "telephone"),
    ),
    "horn": Words(
        "a car horn",
        ("a car horn", "a car horn honking"),
        ("A car honks.", "A car horn is honking."),
        ("horn", "honk"),
    ),
    "bell": Words("a bell", ("a bell tolling", "a bell"), ("A bell tolls.", "A bell is tolling."), ("bell", "toll")),
    "clock": Words(
        "a clock",
        ("a clock ticking", "a ticking clock"),
        ("A clock ticks.", "A clock is ticking."),
        ("clock", "tick"),
    ),
    "engine": Words(
        "an engine",
        ("an engine running", "a running engine"),
        ("An engine is running.", "An engine runs."),
        ("engine",),
    ),
    "footsteps": Words(
        "footsteps",
        ("footsteps", "somebody walking"),
        ("Somebody is walking.", "Footsteps go by."),
        ("footstep", "walk"),
    ),
    "knocking": Words(
        "knocking",
        ("knocking on a door", "somebody knocking"),
        ("Somebody knocks on a door.", "There is a knock on the door."),
        ("knock",),
    ),
    "applause": Words(
        "applause",
        ("applause", "people clapping"),
        ("People are clapping.", "The audience applauds."),
        ("applau", "clap"),
    ),
    "glass": Words("glass", ("glass breaking", "breaking glass"), ("Glass is breaking.", "Glass breaks."), ("glass",)),
    "drum": Words(
        "a drum", ("drums playing", "a drum beat"), ("Drums are playing.", "A drummer plays a beat."), ("drum",)
    ),
    "piano": Words(
        "a piano",
        ("a piano playing", "piano music"),
        ("A piano is playing.", "Somebody plays the piano."),
        ("piano",),
    ),
    "whistle": Words(
        "whistling",
        ("somebody whistling", "whistling"),
        ("Somebody is whistling.", "Somebody whistles a tune."),
        ("whistl",),
    ),
}


@dataclass(frozen=True)
class Abstention:
    """The words for a kind of clip in which nothing can be named."""

    sentences: tuple[str, ...]  # whole answers, the usual one first
    caption: str
    keywords: tuple[str, ...]


ABSTENTIONS = {
    "noise": Abstention(("I only hear noise.",), "There is only noise.", ("noise",)),
    "silence": Abstention(("I hear nothing, only silence.",), "There is silence.", ("silen",)),
    "tone": Abstention(("I only hear a plain tone.",), "There is a plain tone.", ("tone",)),
    "voice": Abstention(
        ("I hear a voice, but I cannot make out the words.",), "Somebody is speaking.", ("voice", "make out", "speak")
    ),
    "unknown": Abstention(
        ("I do not know this sound.",),
        "There is an unknown sound.",
        ("know", "cannot tell", "unknown"),
    ),
}


def kinds_named(text: str) -> set[str]:
    """The kinds whose keywords begin a word of `text`. "I do not know" counts only where nothing else is named."""
    keywords = {kind: words.keywords for kind, words in WORDS.items()}
    keywords |= {kind: abstention.keywords for kind, abstention in ABSTENTIONS.items()}
    named = {
        kind
        for kind, beginnings in keywords.items()
        if any(re.search(rf"\b{beginning}", text, re.IGNORECASE) for beginning in beginnings)
    }
    return named - {"unknown"} if len(named) > 1 else named
