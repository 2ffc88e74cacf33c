"""Speech sets as their publishers lay them out: LibriSpeech, AISHELL-2, Common Voice, FLEURS, CoVoST 2."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from ...datasets.columns import sound_of
from ...datasets.kaldi import read_kaldi
from ...datasets.lines import header_of, numbered_lines, read_table
from ...datasets.paths import SoundFinder, files_below
from ...datasets.row import Row, Sound
from ...errors import DatasetError
from ..example import Example
from ..task import Task
from .build import Answered, Found, example, path_words, refuse_other_parts, source_with

LOCALES = {"zh": "zh-CN"}  # Common Voice's name of a language where it is not ours
FLEURS_COLUMNS = ("id", "file", "raw_transcription", "transcription", "chars", "num_samples", "gender")
FLEURS_TEXT = "raw_transcription"  # `transcription` has a space between characters and gives another error rate
_VOICE_NAMES = (
    "client_id path sentence_id sentence sentence_domain up_votes down_votes age gender accents accent variant locale "
    "segment"
)
VOICE_COLUMNS = frozenset(_VOICE_NAMES.split())
_SPLITS = frozenset(("dev", "test", "train", "clean", "other"))
_COVOST = re.compile(r"covost_v2\.([a-z-]+)_([a-z-]+)(?:\.(train|dev|test))?\.tsv")


def librispeech(task: Task, data: Path) -> Found | None:
    """LibriSpeech/{split}/{speaker}/{chapter}/*.flac with *.trans.txt."""
    texts = list(files_below(data, lambda name: name.endswith(".trans.txt"))) if data.is_dir() else []
    if not texts:
        return None
    mine = {path: source for path in texts if (source := _split_of(task, data, path)) is not None}
    refuse_other_parts(task, data, mine, {path.parents[2] / path.parents[1].name for path in texts} if not mine else ())
    rows = chain.from_iterable(_chapter(task, path, source) for path, source in mine.items())
    return Found("librispeech", tuple(mine), rows, known=frozenset(["text"]))


def _split_of(task: Task, data: Path, texts: Path) -> str | None:
    """The task's source in whose split a chapter lies; a folder that names no split is taken at its word."""
    given = path_words(data, texts)
    return task.sources[0][0] if not given & _SPLITS and len(task.sources) == 1 else source_with(task, given)


def _chapter(task: Task, texts: Path, source: str) -> Iterator[Example]:
    for number, line in numbered_lines(texts):
        key, _, text = line.strip().partition(" ")
        where = f"{texts.name}, line {number}"
        if not key:
            continue
        if not text.strip():
            raise DatasetError(f"{where} is {line[:60]!r}; expected an utterance's name and its text.")
        clips = (texts.with_name(key + ending) for ending in (".flac", ".wav", ".mp3"))
        clip = next((path for path in clips if path.is_file()), texts.with_name(f"{key}.flac"))
        row = Row(key, Sound(str(clip)), where, {"text": text})
        yield example(task, row, Answered(source, text.strip(), group=key.split("-")[0]))


def aishell2(task: Task, data: Path) -> Found | None:
    """AISHELL-DEV-TEST-SET/{iOS,Android,Mic}/{dev,test}/{wav.scp,trans.txt,wav}."""
    lists = list(files_below(data, lambda name: name == "wav.scp"))
    if not lists:
        return None
    mine = {path: source for path in lists if (source := source_with(task, _channel_words(data, path)))}
    refuse_other_parts(task, data, mine, lists)
    finder = SoundFinder(data if data.is_dir() else data.parent)
    rows = chain.from_iterable(_utterances(task, path, source, finder) for path, source in mine.items())
    return Found("aishell2", tuple(mine), rows, finder, frozenset(("id", "audio", "text", "speaker")))


def _channel_words(data: Path, path: Path) -> frozenset[str]:
    """As `path_words`; the folder above counts, too: what was given may be "Mic/test"."""
    given = path_words(data, path)
    above = path_words(data.absolute().parent, path.absolute())
    return given if given & {"mic", "ios", "android"} else above


def _utterances(task: Task, scp: Path, source: str, finder: SoundFinder) -> Iterator[Example]:
    near = SoundFinder(scp.parent, *finder.roots)
    near.repairs = finder.repairs
    for columns, where in read_kaldi(scp):
        row = Row(columns["id"], sound_of(columns, near, where), where, columns)
        yield example(task, row, Answered(source, columns.get("text"), group=aishell_speaker(columns["id"])))


def aishell_speaker(utterance: str) -> str:
    """MD0012W0001 is D0012's, whatever the channel."""
    match = re.fullmatch(r"[A-Z]?([A-Z]\d{4})W\d+", utterance, flags=re.IGNORECASE)
    return match[1] if match else ""


def common_voice(task: Task, data: Path) -> Found | None:
    """cv-corpus-15.0-*/{locale}/{test.tsv,clips/*.mp3}."""
    language = task.id.split("-")[-1]
    locale = LOCALES.get(language, language).lower()
    tables = [path for path in files_below(data, _is_split_table) if {"client_id", "sentence"} <= set(header_of(path))]
    if not tables:
        return None
    mine = [path for path in tables if path.stem.lower() == "test" and _locale_of(path) == locale]
    refuse_other_parts(task, data, mine, tables)
    finder = SoundFinder(mine[0].parent, data if data.is_dir() else data.parent)
    return Found("common_voice", (mine[0],), _voices(task, mine[0], finder), finder, VOICE_COLUMNS)


def _is_split_table(name: str) -> bool:
    return name in ("test.tsv", "dev.tsv", "train.tsv", "validated.tsv")


def _locale_of(table: Path) -> str:
    """The language of a table of Common Voice: its own column, else its folder's name."""
    row, _ = next(read_table(table), ({}, ""))
    return str(row.get("locale") or table.parent.name).lower()


def _voices(task: Task, table: Path, finder: SoundFinder) -> Iterator[Example]:
    for columns, where in read_table(table):
        name = columns["path"]
        row = Row(name, sound_of({"path": name}, finder, where), where, columns)
        yield example(task, row, Answered(task.sources[0][0], columns["sentence"], group=columns["client_id"]))


def fleurs(task: Task, data: Path) -> Found | None:
    """data/cmn_hans_cn/{test.tsv,audio/test/*.wav}; the table has no line of names."""
    tables = [path for path in files_below(data, _is_split_table) if _is_fleurs(header_of(path))]
    if not tables:
        return None
    mine = [path for path in tables if path.stem == "test" and _is_mandarin(path)]
    refuse_other_parts(task, data, mine, tables)
    folder = mine[0].parent
    finder = SoundFinder(folder / "audio" / "test", folder / "test", folder)
    return Found("fleurs", (mine[0],), _read_sentences(task, mine[0], finder), finder, frozenset(FLEURS_COLUMNS))


def _is_fleurs(first_line: list[str]) -> bool:
    return len(first_line) == len(FLEURS_COLUMNS) and first_line[0].isdigit()


def _is_mandarin(table: Path) -> bool:
    """Whether a table lies in Mandarin's folder, or in one that names no language."""
    name = table.absolute().parent.name
    return name == "cmn_hans_cn" or not re.fullmatch(r"[a-z]{2,3}(_[a-z]{4})?_[a-z]{2}", name)


def _read_sentences(task: Task, table: Path, finder: SoundFinder) -> Iterator[Example]:
    for columns, where in read_table(table, FLEURS_COLUMNS):
        row = Row(columns["file"], sound_of({"file": columns["file"]}, finder, where), where, columns)
        extra = {"reference_column": FLEURS_TEXT}
        yield example(task, row, Answered(task.sources[0][0], columns[FLEURS_TEXT], extra=extra))


def covost2(task: Task, data: Path) -> Found | None:
    """covost_v2.{source}_{target}.{dev,test}.tsv as get_covost_splits.py writes them, and Common Voice's clips."""
    tables = list(files_below(data, _COVOST.fullmatch))
    if not tables:
        return None
    mine = {path: source for path in tables if (source := _direction_of(task, path)) is not None}
    refuse_other_parts(task, data, mine, tables)
    folder = data if data.is_dir() else data.parent
    finder = SoundFinder(*dict.fromkeys((*(path.parent for path in mine), folder)), *_folders_of_clips(folder))
    rows = chain.from_iterable(_translations(task, path, name, finder) for path, name in mine.items())
    return Found("covost2", tuple(mine), rows, finder, frozenset(("path", "sentence", "translation", "client_id")))


def _direction_of(task: Task, table: Path) -> str | None:
    match = _COVOST.fullmatch(table.name.lower())
    assert match is not None
    _, source, target = task.id.split("-")
    wanted = tuple(LOCALES.get(language, language).lower() for language in (source, target))
    found = tuple(LOCALES.get(match[number], match[number]).lower() for number in (1, 2))
    return source_with(task, {source, target, match[3]}) if match[3] and found == wanted else None


def _folders_of_clips(folder: Path) -> list[Path]:
    return sorted(path.parent for depth in ("clips", "*/clips", "*/*/clips") for path in folder.glob(depth))


def _translations(task: Task, table: Path, source: str, finder: SoundFinder) -> Iterator[Example]:
    for columns, where in read_table(table):
        if "translation" not in columns or "path" not in columns:
            raise DatasetError(f"{where}: found the columns {', '.join(columns)}; expected path and translation.")
        row = Row(columns["path"], sound_of({"path": columns["path"]}, finder, where), where, columns)
        answered = Answered(source, columns["translation"], group=columns.get("client_id", ""))
        yield example(task, row, answered)
