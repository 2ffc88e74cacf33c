"""Words that nano must not take for its own: made up after the rules of English, and from eleven other languages.

They are written so that an English synthesiser can read them; no word of the world is nearer than two letters.
"""

from __future__ import annotations

from functools import cache
from string import ascii_lowercase

import numpy as np

from .alone import WORDS
from .utterance import plain, sentence, split_of

Rng = np.random.Generator
ONSETS = (
    "b", "bl", "br", "ch", "d", "dr", "f", "fl", "fr", "g", "gl", "gr", "h", "j", "k", "kl", "kr", "l", "m",
    "n", "p", "pl", "pr", "r", "s", "sh", "sk", "sl", "sm", "sn", "sp", "spr", "st", "str", "sw", "t", "thr",
    "tr", "tw", "v", "w", "y", "z",
)  # fmt: skip
VOWELS = ("a", "e", "i", "o", "u", "ee", "oo", "ai", "oy", "ow", "ar", "or", "er")
CODAS = (
    "b", "ck", "d", "ft", "g", "l", "lk", "lm", "lt", "m", "mp", "n", "nd", "ng", "nk", "nt", "p", "pt", "rb",
    "rm", "sk", "sp", "st", "sh", "t", "th", "v", "x", "z",
)  # fmt: skip
ENDINGS = ("", "", "", "el", "er", "ish", "ock", "um", "ow", "a", "ing", "ent", "y", "o")
FOREIGN = {
    "german": "hund katze vogel fenster brot wasser schule bruder himmel strasse freitag grün zwanzig vier "
        "sechs gut baum kirche löffel tisch stuhl schnell",
    "french": "chien chat oiseau fenetre pain ecole frere bonjour merci quatre cinq jardin maison rouge vert "
        "lundi pomme fromage voiture chaise demain",
    "spanish": "perro gato pajaro ventana leche hermano gracias cuatro cinco jardin blanco verde lunes manzana "
        "queso coche silla manana hola",
    "italian": "cane gatto uccello finestra latte fratello grazie quattro cinque giardino bianco lunedi mela "
        "formaggio sedia domani ciao",
    "japanese": "inu neko tori mado mizu gakkou ani sora michi kinyoubi midori shichi hachi roku sakura "
        "arigatou konnichiwa namae kuruma isu ringo",
    "turkish": "kedi köpek kush pencere ekmek okul kardesh gökyüzü yol cuma yeshil dört besh alti elma peynir "
        "araba sandalye yarin merhaba",
    "swahili": "mbwa paka ndege dirisha mkate maji shule ndugu mbingu ijumaa kijani nne tano sita tofaa jibini "
        "gari kiti kesho jambo asante",
    "polish": "pies kot ptak okno chleb woda szkola brat niebo ulica piatek zielony cztery jablko ser krzeslo "
        "jutro dziekuje",
    "finnish": "koira kissa lintu ikkuna leipa vesi koulu veli taivas katu perjantai vihrea nelja viisi omena "
        "juusto tuoli huomenna kiitos",
    "hindi": "kutta billi chidiya khidki roti pani bhai aasman sadak shukravar hara chaar paanch chhah seb "
        "kursi kal namaste",
    "russian": "sobaka koshka ptitsa okno khleb voda shkola brat nebo ulitsa pyatnitsa zelyony chetyre pyat "
        "yabloko syr stul zavtra spasibo",
}  # fmt: skip
HELD_OUT = ("italian", "finnish", "hindi")  # languages of the test alone
# Sound like words of the world, though they are spelled otherwise.
ALIKE = {"ani", "roku", "tori", "gut", "hara", "nebo", "grün", "kal", "ser", "veli", "neko", "besh", "inu", "syr"}
MADE_UP = 700


_SOUNDS = (
    ("sch", "sk"),
    ("ck", "k"),
    ("c", "k"),
    ("ee", "i"),
    ("ea", "i"),
    ("oo", "u"),
    ("ou", "u"),
    ("ay", "ai"),
    ("y", "i"),
)


def _by_sound(word: str) -> str:
    for letters, sound in _SOUNDS:
        word = word.replace(letters, sound)
    return word


@cache
def _known() -> tuple[frozenset[str], frozenset[str]]:
    """The words of the world, and what they sound like."""
    words = frozenset(one for known in WORDS for one in plain(known).split())
    return words, frozenset(map(_by_sound, words))


def _strange(word: str) -> bool:
    """No word of the world is one letter away, nor sounds the same."""
    words, sounds = _known()
    ends = [(word[:at], word[at:]) for at in range(len(word) + 1)]
    near = {word} | {left + right[1:] for left, right in ends}
    near |= {left + new + rest for left, right in ends for new in ascii_lowercase for rest in (right, right[1:])}
    return not near & words and _by_sound(word) not in sounds


def _made_up() -> tuple[str, ...]:
    """Half of them of one syllable."""
    rng, found = np.random.default_rng(2), dict[str, None]()

    def pick(items: tuple[str, ...]) -> str:
        return items[int(rng.integers(len(items)))]

    while len(found) < MADE_UP:
        word = pick(ONSETS) + pick(VOWELS) + pick(CODAS)
        if len(found) % 2:
            word += pick(ENDINGS) or pick(VOWELS[:5]) + pick(CODAS)
        if _strange(word):
            found[word] = None
    return tuple(found)


@cache
def _words(split: str) -> tuple[str, ...]:
    """Made-up words by their hash, foreign ones by language; of training's languages, by their hash, too."""
    made_up = [word for word in _made_up() if split_of(word) == split]
    foreign = []
    for language, words in FOREIGN.items():
        known = [word for word in words.split() if word not in ALIKE and _strange(word)]
        held_out = language in HELD_OUT
        foreign += [word for word in known if (split == "test" if held_out else split_of(word) == split != "test")]
    return tuple(dict.fromkeys((*made_up, *foreign)))


def aliens(split: str) -> tuple[str, ...]:
    """The words of `split`, as a synthesiser reads them alone: "Blorm." """
    return tuple(map(sentence, _words(split)))


def alien(rng: Rng, split: str) -> str:
    """One word half of the time, else two to four, an article before some of them."""
    words, several = _words(split), rng.random() < 0.5
    said = [words[int(rng.integers(len(words)))] for _ in range(rng.integers(2, 5) if several else 1)]
    articles = ("", "", "the ", "a ")
    return sentence(" ".join(articles[int(rng.integers(4))] + one if several else one for one in said))


ALIENS: tuple[str, ...] = aliens("train")
"""Words for training."""
