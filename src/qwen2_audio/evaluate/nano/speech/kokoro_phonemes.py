"""Text as Kokoro reads it: espeak-ng's phonemes, in the alphabet of Kokoro's vocabulary.

The replacements are those that misaki (Apache-2.0), Kokoro's own front end, makes of espeak-ng's output.
"""

from __future__ import annotations

import re
import subprocess

# Ids and the signs that have them, in order; the ids between are not used.
_IDS = (
    *range(1, 7), *range(9, 26), 31, 33, 35, 36, 39, 41, 42, 43, 44, 45, 46, 47, 48, *range(50, 73), 75, 76, 77, 78,
    *range(80, 84), 85, 86, 87, 90, 92, 99, 101, 102, 103, 110, 111, 112, 113, 114, 115, 116, 118, 119, 120, 123, 125,
    126, 128, 129, 130, 131, 132, 133, 135, 136, 138, 139, 140, 142, 143, 147, 148, 156, 157, 158, 162, 164, 169, 171,
    172, 173, 177,
)  # fmt: skip
_SIGNS = (
    ';:,.!?—…"()“” \u0303ʣʥʦʨᵝ\uab67AIOQSTWYᵊabcdefhijklmnopqrstuvwxyzɑɐɒæβɔɕçɖðʤəɚɛɜɟɡɥɨɪʝɯɰŋɳɲɴøɸθœɹɾɻʁɽʂʃʈʧʊʋʌɣɤχʎ'
    "ʒʔˈˌːʰʲ↓→↗↘ᵻ"
)
VOCABULARY = dict(zip(_SIGNS, _IDS, strict=True))
_SYLLABIC = "\u0329"
_TIED = {
    f"ʔˌn{_SYLLABIC}": "tᵊn", f"ʔn{_SYLLABIC}": "tᵊn", "ʔn": "tᵊn", "ʔ": "t", "a^ɪ": "I", "a^ʊ": "W", "d^ʒ": "ʤ",
    "e^ɪ": "A", "e": "A", "t^ʃ": "ʧ", "ɔ^ɪ": "Y", "ə^l": "ᵊl", "ʲo": "jo", "ʲə": "jə", "ʲ": "", "ɚ": "əɹ", "r": "ɹ",
    "x": "k", "ç": "k", "ɐ": "ə", "ɬ": "l", "\u0303": "",
}  # fmt: skip
_LONGER_FIRST = sorted(_TIED.items(), key=lambda pair: -len(pair[0]))
_AMERICAN = {"o^ʊ": "O", "ɜːɹ": "ɜɹ", "ɜː": "ɜɹ", "ɪə": "iə", "ː": "", "ɾ": "T"}
_BRITISH = {"iə": "ɪə", "ə^ʊ": "Q", "ɾ": "t"}


def phonemes(text: str, british: bool = False, language: str = "") -> str:
    """The signs of `text`, its punctuation kept. `language`: of espeak-ng, English by default."""
    name, out = language or ("en-gb" if british else "en-us"), list[str]()
    for part in re.findall(r"[^,.!?;:]+|[,.!?;:]+", text.strip()):
        if part[0] in ",.!?;:":
            out.append(part[0])
        elif part.strip():
            out.append((" " if out else "") + letters(_ipa(part.strip(), name), british))
    return "".join(out).strip()


def letters(ipa: str, british: bool) -> str:
    """espeak-ng's phonemes, diphthongs tied by "^", in Kokoro's letters."""
    if british:
        ipa = ipa.replace("e^ə", "ɛː")
    for old, new in _LONGER_FIRST:
        ipa = ipa.replace(old, new)
    ipa = re.sub(rf"(\S){_SYLLABIC}", r"ᵊ\1", ipa).replace(_SYLLABIC, "")
    for old, new in (_BRITISH if british else _AMERICAN).items():
        ipa = ipa.replace(old, new)
    return ipa.replace("o", "ɔ").replace("^", "").replace("ɹɹ", "ɹ")


def _ipa(text: str, name: str) -> str:
    command = ["espeak-ng", "-q", "--ipa", "--tie=^", "-v", name, "--", text]
    said = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    return " ".join(said.split()).replace("_", "").replace("-", "")
