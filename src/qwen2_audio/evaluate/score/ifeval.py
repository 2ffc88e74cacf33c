"""IFEval's 25 instructions that a program can check, after the paper's description (Zhou et al. 2023).

Sentences are split without NLTK's model, which would be a download: counts differ from the authors' in rare texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...errors import ConfigError

Arguments = Mapping[str, Any]
Check = Callable[[str, Arguments], bool]
ABBREVIATIONS = re.compile(
    r"\b(?:mr|mrs|ms|dr|prof|st|jr|sr|vs|etc|inc|ltd|co|e\.g|i\.e|u\.s|a\.m|p\.m|fig)\.$", re.IGNORECASE
)
FENCES = re.compile(r"^```(?:json)?|```$", re.IGNORECASE)


def follows(name: str, arguments: Arguments, texts: Sequence[str]) -> bool:
    """Whether one of `texts` is no empty one and does what the instruction asks."""
    return any(text.strip() and INSTRUCTIONS[name](text, arguments) for text in texts)


def variants(text: str) -> list[str]:
    """The loose reading's eight: without the first line, the last, both, none; each with and without asterisks."""
    lines = text.split("\n")
    cut = [text, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return cut + [part.replace("*", "") for part in cut]


def sentences(text: str) -> int:
    """How many sentences `text` has."""
    parts = re.split(r"(?<=[.!?])[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[A-Z0-9])", text.strip())
    return sum(bool(part.strip()) for part in parts) - sum(bool(ABBREVIATIONS.search(part)) for part in parts[:-1])


def _relation(count: int, wanted: int, relation: str) -> bool:
    return count < wanted if relation == "less than" else count >= wanted


def _matches(pattern: str, text: str) -> list[str]:
    return re.findall(pattern, text, re.IGNORECASE)


def _language(text: str, code: str) -> bool:
    try:
        from langdetect.detector_factory import DetectorFactory, detect
        from langdetect.lang_detect_exception import LangDetectException
    except ImportError as error:
        raise ConfigError(
            "IFEval's instructions on languages need langdetect: pip install 'qwen2-audio[eval]'."
        ) from error
    DetectorFactory.seed = 0  # it draws
    try:
        return str(detect(text)) == code
    except LangDetectException:  # nothing to tell it by: the authors let it pass
        return True


def _paragraphs(text: str, a: Arguments) -> bool:
    parts = re.split(r"\s?\*\*\*\s?", text)
    if any(not part.strip() for part in parts[1:-1]):
        return False
    return bool(sum(bool(part.strip()) for part in parts) == a["num_paragraphs"])


def _first_word(text: str, a: Arguments) -> bool:
    parts = text.split("\n\n")
    count, place = sum(bool(part.strip()) for part in parts), a["nth_paragraph"]
    if place > count or not parts[place - 1].strip():
        return False
    word = parts[place - 1].split()[0].lstrip("'").lstrip('"')
    first = re.split(r"[.,?!'\"]", word)[0].lower()
    return bool(count == a["num_paragraphs"] and first == a["first_word"].lower())


def _bullets(text: str, a: Arguments) -> bool:
    stars, dashes = (re.findall(form, text, re.MULTILINE) for form in (r"^\s*\*[^\*].*$", r"^\s*-.*$"))
    return bool(len(stars) + len(dashes) == a["num_bullets"])


def _highlights(text: str, a: Arguments) -> bool:
    found = re.findall(r"\*[^\n\*]*\*", text) + re.findall(r"\*\*[^\n\*]*\*\*", text)
    return bool(sum(bool(part.strip("*").strip()) for part in found) >= a["num_highlights"])


def _json(text: str, a: Arguments) -> bool:
    try:
        json.loads(FENCES.sub("", FENCES.sub("", text.strip(), count=1).strip()).strip())
    except ValueError:
        return False
    return True


def _two_responses(text: str, a: Arguments) -> bool:
    parts = text.split("******")
    if any(not part.strip() for part in parts[1:-1]):
        return False
    filled = [part.strip() for part in parts if part.strip()]
    return len(filled) == 2 and filled[0] != filled[1]


def _postscript(text: str, a: Arguments) -> bool:
    marker = a["postscript_marker"]
    forms = {"P.P.S": r"\s*p\.\s?p\.\s?s.*$", "P.S.": r"\s*p\.\s?s\..*$"}
    return bool(re.findall(forms.get(marker, rf"\s*{marker.lower()}.*$"), text.lower(), re.MULTILINE))


def _capital_words(text: str, a: Arguments) -> bool:
    words = re.findall(r"\w+(?:[-'’]\w+)*", text)
    return _relation(sum(word.isupper() for word in words), a["capital_frequency"], a["capital_relation"])


def _quoted(text: str, a: Arguments) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


INSTRUCTIONS: Mapping[str, Check] = {
    "keywords:existence": lambda t, a: all(_matches(word, t) for word in a["keywords"]),
    "keywords:frequency": lambda t, a: _relation(len(_matches(a["keyword"], t)), a["frequency"], a["relation"]),
    "keywords:forbidden_words": lambda t, a: not any(_matches(rf"\b{word}\b", t) for word in a["forbidden_words"]),
    "keywords:letter_frequency": lambda t, a: _relation(
        t.lower().count(a["letter"].lower()), a["let_frequency"], a["let_relation"]
    ),
    "language:response_language": lambda t, a: _language(t, a["language"]),
    "length_constraints:number_sentences": lambda t, a: _relation(sentences(t), a["num_sentences"], a["relation"]),
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_words": lambda t, a: _relation(
        len(re.findall(r"\w+", t)), a["num_words"], a["relation"]
    ),
    "length_constraints:nth_paragraph_first_word": _first_word,
    "detectable_content:number_placeholders": lambda t, a: len(re.findall(r"\[.*?\]", t)) >= a["num_placeholders"],
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": lambda t, a: any(
        f"My answer is {word}." in t for word in ("yes", "no", "maybe")
    ),
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": lambda t, a: (
        len(re.split(rf"\s?{a['section_spliter']}\s?\d+\s?", t)) - 1 >= a["num_sections"]
    ),
    "detectable_format:json_format": _json,
    "detectable_format:title": lambda t, a: any(title.strip("<>").strip() for title in re.findall(r"<<[^\n]+>>", t)),
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": lambda t, a: t.strip().lower().startswith(a["prompt_to_repeat"].strip().lower()),
    "startend:end_checker": lambda t, a: t.strip().strip('"').lower().endswith(a["end_phrase"].strip().lower()),
    "startend:quotation": _quoted,
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": lambda t, a: t.isupper() and _language(t, "en"),
    "change_case:english_lowercase": lambda t, a: t.islower() and _language(t, "en"),
    "punctuation:no_comma": lambda t, a: "," not in t,
}
