"""The language of a transcript: by its script, else by the small words that are frequent in one language only."""

from __future__ import annotations

import re
from collections import Counter

_SCRIPTS = (  # the first one whose letters make a fifth of the text decides; kana before Han, which Japanese has too
    ("ja", "\u3040-\u30ff"), ("ko", "\uac00-\ud7af"), ("zh", "\u4e00-\u9fff"), ("th", "\u0e00-\u0e7f"),
    ("hi", "\u0900-\u097f"), ("ar", "\u0600-\u06ff"), ("el", "\u0370-\u03ff"), ("ru", "\u0400-\u04ff"),
)  # fmt: skip
_CANTONESE, _UKRAINIAN = "嘅咗喺唔哋冇佢嚟", "іїєґ"  # characters that standard Chinese and Russian do not have
_WORDS = {
    "cs": "a je se na to že v s i jako ale není jsem jsou byl by pro od který všichni svou mají",
    "nl": "de het een en van is ik niet dat op te zijn met voor er maar worden hun zij aan hebben",
    "en": "the and of to is in that it you i was for are with they this have be what not my we he she do a",
    "fi": "ja on ei se että hän oli kuin mutta ovat myös joka olla niin kun mitä heille kaikki",
    "fr": "le la les des et est un une je que dans pas pour vous nous il elle ce sont en du au avec leurs",
    "de": "der die das und ist ich nicht ein eine zu den mit sie es auf für wir dem sind im von als",
    "hu": "a az és nem hogy egy van is de meg ez mint volt csak el azt kell minden születik",
    "id": "yang dan di ini itu dengan tidak untuk dari pada akan saya mereka dalam adalah bisa semua orang",
    "it": "il lo la gli e di che è un una non per sono con mi ma ho come del della in gli essi",
    "ms": "yang dan di ini itu dengan tidak untuk dari pada akan saya mereka dalam adalah boleh semua manusia",
    "pl": "i w nie na się że z jest do to jak są ale co był jego od tak wszyscy pod względem",
    "pt": "o os as e que de não um uma em para com eu se do da por mas você são foi ao na no",
    "ro": "și în nu este de la un o să cu pe că mai sunt din am ce pentru lor toate se",
    "es": "el los las y que de no un una en es por con para lo se su mi pero como del está yo",
    "sv": "och att det är som en på jag inte för med har av den till om vi ett de i",
    "tr": "ve bir bu da de için ne ama çok ben var mı değil olan gibi daha bütün ile",
    "vi": "là và của có không tôi một cho được này người trong với đã những các về mọi",
}  # fmt: skip
# Of one letter are abbreviations and units too.
_FREQUENT = {code: frozenset(word for word in words.split() if len(word) > 1) for code, words in _WORDS.items()}


def language_of_text(text: str) -> str | None:
    """The ISO 639 code of the language of a text, one of `wording.LANGUAGES`; None if too little in it tells."""
    letters = re.findall(r"[^\W\d_]", text)
    for code, characters in _SCRIPTS:
        found = re.findall(f"[{characters}]", text)
        if found and 5 * len(found) >= len(letters):
            if code == "zh":
                return "yue" if any(character in text for character in _CANTONESE) else "zh"
            return "uk" if code == "ru" and any(character in text.lower() for character in _UKRAINIAN) else code
    words = re.findall(r"[^\W\d_]+", text.lower())
    counts = Counter({code: sum(word in frequent for word in words) for code, frequent in _FREQUENT.items()})
    (best, most), (_, second) = counts.most_common(2)
    return best if most >= 2 and most > second else None
