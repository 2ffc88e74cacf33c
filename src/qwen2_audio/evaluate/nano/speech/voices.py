"""Who speaks: the voices of training, and those that only the examination hears.

Training also has drawn variants of espeak-ng (`variants.py`) and festival's ked. The sex of espeak-ng's own variants is
that of the file, or, where the file has none, of the male voice it varies. Near copies of a held-out variant (Lee of
Andy, belinda and aunty of linda) are left out of training too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .variants import variant_name, variant_sex

Rng = np.random.Generator
# Names by which espeak-ng finds a voice: where it has a language only ("en-gb", here "en"), it leaves the variant out.
ACCENTS = ("en-us", "en", "en-gb-x-rp", "en-us", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029")
MEN = (
    "m1", "m2", "m3", "m4", "m5", "m6", "m8", "Denis", "Diogo", "Hugo", "Marco", "Michael", "Mario", "Alex", "victor",
    "antonio", "norbert", "max", "pablo", "pedro", "paul", "quincy", "robert", "gustave", "grandpa", "croak",
    "kaukovalta", "boris", "klatt", "klatt2", "klatt3", "klatt4", "edward", "david", "adam", "ed", "Gene", "Jacky",
)  # fmt: skip
WOMEN = ("f1", "f2", "f3", "f5", "Andrea", "Annie", "anika", "steph", "steph2", "steph3")


@dataclass(frozen=True)
class Voice:
    """One voice of an engine."""

    engine: str  # "espeak", "flite" or "festival"
    name: str  # of an espeak-ng variant, or of a voice of the others
    sex: str  # "man" or "woman"
    # A man's voice made a woman's: higher pitch, formants moved up. The only recorded woman (flite's slt) is held out.
    as_woman: bool = False


OWN = (*(Voice("espeak", name, "man") for name in MEN), *(Voice("espeak", name, "woman") for name in WOMEN))
FLITE = tuple(
    Voice("flite", name, sex, as_woman=sex == "woman") for sex in ("man", "woman") for name in ("kal16", "awb")
)
KED = tuple(Voice("festival", "ked", sex, as_woman=sex == "woman") for sex in ("man", "woman"))
DRAWN = 200  # variants of espeak-ng that only training hears
NEW = tuple(Voice("espeak", variant_name(number), variant_sex(number)) for number in range(DRAWN))
SEEN = (*OWN, *FLITE)
TRAINED = (*SEEN, *KED, *NEW)
UNSEEN_VARIANTS = (
    Voice("espeak", "m7", "man"),
    Voice("espeak", "Andy", "man"),
    Voice("espeak", "marcelo", "man"),
    Voice("espeak", "f4", "woman"),
    Voice("espeak", "Alicia", "woman"),
    Voice("espeak", "linda", "woman"),
)
UNSEEN_VOICES = (
    Voice("espeak", "travis", "man"),
    Voice("espeak", "grandma", "woman"),
    Voice("flite", "rms", "man"),
    Voice("flite", "slt", "woman"),
)
GROUPS = {"trained": TRAINED, "seen": SEEN, "variant": UNSEEN_VARIANTS, "voice": UNSEEN_VOICES}
FLITE_SHARE = 0.36  # of the examination's clips by seen voices
SHARES = ((OWN, 0.24), (NEW, 0.22), (FLITE, 0.33), (KED, 0.21))  # of the clips of training


@dataclass(frozen=True)
class Manner:
    """How a voice speaks this time."""

    accent: str  # espeak-ng's language; "" for flite
    pitch: float  # espeak-ng: 0 to 99; flite: mean in Hz, 0 for its own
    pace: float  # 1 is the engine's own; above is faster
    formant_scale: float  # formants and pitch are multiplied by this, as by a shorter or longer vocal tract


def draw_voice(rng: Rng, group: str) -> Voice:
    """A voice of `group`: men and women equally often, recorded voices by their share where there are any."""
    voices = GROUPS[group]
    if group == "trained":
        voices = SHARES[int(rng.choice(len(SHARES), p=[share for _, share in SHARES]))][0]
    elif group == "seen":
        voices = FLITE if rng.random() < FLITE_SHARE else OWN
    sex = "man" if rng.random() < 0.5 else "woman"
    voices = tuple(voice for voice in voices if voice.sex == sex)
    return voices[int(rng.integers(len(voices)))]


def draw_manner(rng: Rng, voice: Voice, *, far: bool = False) -> Manner:
    """How `voice` speaks this time. `far`: formants may move further, for training, which has few recorded voices."""
    pace = float(rng.uniform(0.8, 1.25))
    if voice.engine == "espeak":
        accent = ACCENTS[int(rng.integers(len(ACCENTS)))]
        return Manner(accent, float(rng.integers(38, 63)), pace, float(rng.uniform(0.93, 1.08)))
    if voice.as_woman:
        scale = float(rng.uniform(1.07, 1.25) if far else rng.uniform(1.1, 1.22))
        return Manner("", float(rng.uniform(165, 235)) / scale, pace, scale)
    own_pitch = voice.name in ("rms", "slt") or rng.random() < 0.3
    low, high = (0.87, 1.1) if far else (0.93, 1.07)
    return Manner("", 0.0 if own_pitch else float(rng.uniform(85, 140)), pace, float(rng.uniform(low, high)))
