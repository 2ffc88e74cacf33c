"""Commands: too many to learn by heart. Those that `split_of` gives to the test are never trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .facts import DAYS
from .numbers import words
from .utterance import Utterance, a

Rng = np.random.Generator
DEVICES = ("light", "lamp", "radio", "television", "fan", "heating", "oven", "music")
ROOMS = ("kitchen", "bedroom", "bathroom", "living room", "garden", "office", "hall", "garage")
CLOSED = ("window", "door", "curtain", "gate")
FOOD = ("bread", "milk", "butter", "cheese", "rice", "sugar", "salt", "tea", "coffee", "apples", "eggs", "fish")
MUSIC = ("jazz", "rock", "piano", "dance", "happy", "sad", "quiet", "loud")
UNITS = ("second", "minute", "hour")
NAMES = (
    "Alice", "Ben", "Carla", "David", "Emma", "Frank", "Grace", "Henry", "Ivy", "Jack", "Kate", "Leo", "Mary", "Noah",
    "Olivia", "Peter", "Rose", "Sam", "Tom", "Vera",
)  # fmt: skip


def pick(rng: Rng, items: Sequence[str]) -> str:
    return items[int(rng.integers(len(items)))]


def switch(rng: Rng) -> Utterance:
    verb, state = pick(rng, ("Turn", "Switch")), pick(rng, ("on", "off"))
    thing = f"the {pick(rng, DEVICES)} in the {pick(rng, ROOMS)}"
    return Utterance(f"{verb} {state} {thing}.", "switch", f"Okay, {thing} is {state}.")


def move(rng: Rng) -> Utterance:
    verb = pick(rng, ("Open", "Close", "Please open", "Please close"))
    thing = f"the {pick(rng, CLOSED)} in the {pick(rng, ROOMS)}"
    state = "open" if "open" in verb.lower() else "closed"
    return Utterance(f"{verb} {thing}.", "move", f"Okay, {thing} is {state}.")


def timer(rng: Rng) -> Utterance:
    n, unit = int(rng.integers(1, 61)), pick(rng, UNITS)
    length = f"{words(n)} {unit}{'s' if n > 1 else ''}"
    verb = pick(rng, ("Set a timer for", "Start a timer for", "Please set a timer for"))
    return Utterance(f"{verb} {length}.", "timer", f"Okay, the timer is set for {length}.")


def wake(rng: Rng) -> Utterance:
    at = f"at {words(int(rng.integers(1, 13)))} o'clock on {pick(rng, DAYS)}"
    return Utterance(f"Wake me {at}.", "wake", f"Okay, I will wake you {at}.")


def volume(rng: Rng) -> Utterance:
    n, thing = words(int(rng.integers(0, 11))), pick(rng, ("radio", "television", "music"))
    return Utterance(f"Set the volume of the {thing} to {n}.", "volume", f"Okay, the volume of the {thing} is {n}.")


def play(rng: Rng) -> Utterance:
    what = f"{pick(rng, MUSIC)} music in the {pick(rng, ROOMS)}"
    verb = pick(rng, ("Play", "Please play"))
    return Utterance(f"{verb} {what}.", "play", f"Okay, playing {what}.")


def remind(rng: Rng) -> Utterance:
    what = f"to call {pick(rng, NAMES)} on {pick(rng, DAYS)}"
    return Utterance(f"Remind me {what}.", "remind", f"Okay, I will remind you {what}.")


def shopping(rng: Rng) -> Utterance:
    one, two = rng.permutation(len(FOOD))[:2]
    what = f"{FOOD[one]} and {FOOD[two]}"
    return Utterance(f"Add {what} to the list.", "shopping", f"Okay, {what} are on the list.")


def message(rng: Rng) -> Utterance:
    person, state = (
        pick(rng, NAMES),
        pick(rng, ("late", "early", "here", "at home", "at work", "happy", "ill", "ready")),
    )
    return Utterance(
        f"Tell {person} that I am {state}.", "message", f"Okay, I will tell {person} that you are {state}."
    )


def order(rng: Rng) -> Utterance:
    thing = pick(rng, ("taxi", "pizza", "table", "bus", "room", "ticket", "train", "sandwich"))
    when = f"at {words(int(rng.integers(1, 13)))} o'clock"
    who = f"for {pick(rng, NAMES)}"
    return Utterance(f"Order {a(thing)} {who} {when}.", "order", f"Okay, I will order {a(thing)} {who} {when}.")


COMMANDS = (switch, move, timer, wake, volume, play, remind, shopping, message, order)
