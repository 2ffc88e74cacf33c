"""The sorts of the eight kinds that recordings have in many shapes, with the ranges of their parameters.

`kinds.py` stays as it is, so that the examination's older rows keep their clips to the byte.
"""

from __future__ import annotations

from collections.abc import Mapping

from . import field_beats, field_bells, field_motors, field_signals, field_steps, field_water
from .kinds import Kind

SORTS: Mapping[str, tuple[Kind, ...]] = {
    "water": (
        Kind(
            "water stream", field_water.stream, {"pitch": (600, 3600), "bubbles": (60, 1200), "hiss": (0.1, 1.2)}, 0.6
        ),
        Kind("water fall", field_water.fall, {"top": (1500, 7800), "slope": (0.3, 1.6), "grain": (0.15, 0.9)}, 0.8),
        Kind("water pouring", field_water.pouring, {"start": (220, 900), "span": (1.3, 3.5), "bubbles": (10, 90)}, 1.0),
        Kind("water dripping", field_water.dripping, {"pitch": (500, 2600), "rate": (0.8, 7), "rise": (0.0, 0.3)}, 0.4),
        Kind("water splash", field_water.splash, {"burst": (0.05, 0.5), "bubbles": (15, 120)}, 0.7),
    ),
    "bell": (
        Kind("bell church", field_bells.church, {"pitch": (110, 900), "ring": (0.7, 4.0), "every": (0.7, 3.5)}, 0.7),
        Kind("bell hand", field_bells.hand, {"pitch": (600, 4200), "ring": (0.15, 2.0), "rate": (3, 12)}, 0.4),
        Kind("bell chime", field_bells.chime, {"pitch": (300, 2200), "ring": (0.3, 2.0), "every": (0.15, 0.8)}, 0.8),
        Kind("bell gong", field_bells.gong, {"pitch": (70, 600), "ring": (0.8, 4.0), "dense": (1.0, 4.0)}, 0.8),
        Kind("bell cow", field_bells.cowbell, {"pitch": (350, 1600), "ring": (0.04, 0.4), "rate": (1.5, 7)}, 0.5),
        Kind("bell sleigh", field_bells.sleigh, {"pitch": (2200, 5500), "rate": (2.5, 9)}, 0.8),
    ),
    "engine": (
        Kind("engine idling", field_motors.idling, {"rate": (11, 110), "rev": (0.0, 1.2), "tilt": (0.2, 1.8)}, 0.6),
        Kind("engine starting", field_motors.starting, {"starter": (90, 420), "turns": (2, 9), "rate": (18, 70)}, 1.2),
        Kind("engine passing", field_motors.passing, {"rate": (40, 320), "speed": (0.02, 0.25)}, 1.0),
        Kind("engine rotor", field_motors.rotor, {"blades": (7, 32), "sharp": (3, 18), "tilt": (0.5, 1.6)}, 0.8),
        Kind(
            "engine electric",
            field_motors.electric,
            {"pitch": (90, 1400), "air": (700, 6000), "whine": (0.1, 1.5)},
            0.6,
        ),
    ),
    "footsteps": (
        Kind(
            "footsteps loose",
            field_steps.loose,
            {"period": (0.28, 0.95), "length": (0.12, 0.5), "grains": (80, 2500)},
            0.5,
        ),
        Kind(
            "footsteps hard",
            field_steps.hard,
            {"period": (0.25, 0.95), "floor": (50, 260), "click": (0.002, 0.02)},
            0.5,
        ),
        Kind(
            "footsteps ringing",
            field_steps.ringing,
            {"period": (0.28, 0.95), "floor": (80, 700), "ring": (0.015, 0.2)},
            0.5,
        ),
    ),
    "applause": (
        Kind(
            "applause crowd",
            field_steps.crowd,
            {"people": (20, 120), "tone": (700, 2200), "pace": (2.5, 6), "mass": (0.3, 3)},
            0.8,
        ),
        Kind("applause few", field_steps.few, {"people": (1, 8), "tone": (600, 2200), "pace": (1.6, 6)}, 0.8),
        Kind(
            "applause cheering",
            field_steps.cheering,
            {"voices": (2, 18), "loud": (0.2, 1.2), "tone": (700, 2200), "pace": (2.5, 6)},
            1.0,
        ),
    ),
    "alarm": (
        Kind("alarm beeps", field_signals.beeps, {"pitch": (450, 4500), "on": (0.03, 0.9), "off": (0.03, 0.9)}, 0.5),
        Kind("alarm whoop", field_signals.whoop, {"low": (250, 1300), "span": (1.5, 5), "length": (0.15, 1.4)}, 0.6),
        Kind("alarm hi lo", field_signals.hi_lo, {"pitch": (450, 2600), "step": (1.1, 1.9), "rate": (1.5, 9)}, 0.7),
        Kind("alarm buzzer", field_signals.buzzer, {"pitch": (70, 500), "on": (0.2, 1.5), "off": (0.05, 0.6)}, 0.4),
    ),
    "phone": (
        Kind("phone gongs", field_signals.gongs, {"pitch": (500, 2200), "rate": (14, 32), "ring": (0.4, 2.2)}, 0.5),
        Kind("phone warble", field_signals.warble, {"pitch": (380, 2000), "rate": (9, 32), "ring": (0.3, 2.0)}, 0.5),
        Kind(
            "phone exchange", field_signals.exchange, {"drift": (0.9, 1.15), "on": (0.35, 2.0), "off": (0.3, 3.0)}, 0.8
        ),
        Kind("phone keypad", field_signals.keypad, {"on": (0.05, 0.3), "off": (0.04, 0.4)}, 0.8),
        Kind("phone ringtone", field_signals.ringtone, {"root": (400, 1500), "note": (0.06, 0.25)}, 1.0),
    ),
    "drum": (
        Kind("drum stroke", field_beats.stroke, {"pitch": (60, 320), "ring": (0.03, 0.8), "snap": (0.1, 1.2)}, 0.12),
        Kind("drum loop", field_beats.loop, {"tempo": (65, 185), "ring": (0.03, 0.5), "hats": (0.1, 1.0)}, 0.8),
        Kind("drum by hand", field_beats.by_hand, {"pitch": (80, 420), "ring": (0.03, 0.4), "tempo": (70, 200)}, 0.5),
        Kind("drum roll", field_beats.roll, {"pitch": (60, 300), "ring": (0.03, 0.4), "rate": (11, 32)}, 0.5),
    ),
}
