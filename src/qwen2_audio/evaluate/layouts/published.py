"""Benchmarks in Parquet and Arrow files, as the hub has them and as `datasets.save_to_disk` writes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from ...datasets.columns import TEXT, first, first_name, speaker_of
from ...datasets.corpus import Corpus, form_of
from ...datasets.paths import SoundFinder, files_below
from ...datasets.row import Row
from ...errors import DatasetError
from ..example import Example
from ..task import Task
from . import labels, questions, speech, spoken
from .build import EITHER, Answered, Found, example, path_words, refuse_other_parts, source_with, text_of, words
from .manifest import KNOWN, read_asr, read_qa
from .official import group_of

_ENDINGS = (".parquet", ".arrow")
_SPLITS = frozenset(("dev", "test", "train", "validated", "invalidated", "other"))
_LANGUAGES = {
    "en": {"en", "english"}, "zh": {"zh", "cn", "mandarin", "chinese", "cmn", "hans"}, "yue": {"yue", "cantonese"},
    "fr": {"fr", "french"},
}  # fmt: skip
_OTHER_CHINESE = {"tw", "hk", "hant"}  # Common Voice's zh-TW and zh-HK are other sets
_NAMES = {
    "voicebench": r"voice[_-]?bench", "openaudiobench": r"open[_-]?audio[_-]?bench", "airbench": r"air[_-]?bench",
    "librispeech": r"libri[_-]?speech", "aishell2": r"aishell[_-]?2", "cv15": r"common[_-]?voice|^cv[_-]?(corpus|15)",
    "covost2": "covost", "fleurs": "fleurs", "meld": "meld", "vocalsound": r"vocal[_-]?sound", "mmau": "mmau",
    "mmar": "mmar", "mmsu": "mmsu",
}  # fmt: skip
_DIRECTION = re.compile(r"(?<![a-z])([a-z]{2})[_-]([a-z]{2})(?![a-z])")
Chooser = Callable[[Task, Path, Path], str | None]
Reader = Callable[[Task, Row, str], Example]


def parquet(task: Task, data: Path) -> Found | None:
    """The task's files among those of `data`, by their paths; and where those say nothing, the rows' own columns."""
    if task.id in ("asr", "qa"):
        return None  # any table at all is theirs
    files = list(files_below(data, lambda name: name.endswith(_ENDINGS) and not name.startswith("cache-")))
    if not files:
        return None
    choose, read = _FAMILIES[_family(task)]
    root = data if data.is_dir() else data.parent
    files = [path for path in files if _benchmark_of(path.relative_to(root), task) in (None, task.id.split("-")[0])]
    if not files:
        return None
    chosen = {path: choose(task, path.relative_to(root), data) for path in files}
    sources = {path: source for path, source in chosen.items() if source is not None}
    refuse_other_parts(task, data, sources, files)
    finder = SoundFinder(root, *dict.fromkeys(path.parent for path in sources))
    return Found("parquet", tuple(sources), _examples(task, sources, finder, read), finder, _known())


def _benchmark_of(inner: Path, task: Task) -> str | None:
    """Which benchmark a path below the user's folder names, the outermost name counting; None: none."""
    for part in inner.parts:
        for family, pattern in _NAMES.items():
            is_subset = family == "mmsu" and task.id.startswith("voicebench")
            if re.search(pattern, part.lower()) and not is_subset:
                return family
    return None


def _known() -> frozenset[str]:
    return KNOWN | questions.KNOWN | spoken.VOICEBENCH_COLUMNS | speech.VOICE_COLUMNS | labels.MELD_COLUMNS


def _family(task: Task) -> str:
    return task.id if task.id in _FAMILIES else task.id.split("-")[0]


def _examples(task: Task, sources: dict[Path, str], finder: SoundFinder, read: Reader) -> Iterator[Example]:
    for path, source in sorted(sources.items()):
        for row in Corpus(path, form_of(path), (path,), finder).rows():
            if not _is_of_another_part(source, row):
                found = read(task, row, source)
                # Rows without ids of their own have the same ones in every part.
                yield replace(found, id=f"{source}/{found.id}") if len(task.sources) > 1 else found


def _is_of_another_part(source: str, row: Row) -> bool:
    """Whether a row says that it is of another part than its file's name: some tables hold several."""
    named = first(row.columns, ("source", "split"))
    if not isinstance(named, str):
        return False
    mine, theirs = words(source), words(named)
    return any(mine & part and theirs & part and not mine & theirs & part for part in EITHER)


def _by_words(task: Task, inner: Path, data: Path) -> str | None:
    """By the words of the path; a single table that says nothing of parts is taken to be the task's."""
    given = path_words(data if data.is_dir() else data.parent, (data if data.is_dir() else data.parent) / inner)
    found = source_with(task, given)
    if found is None and not given & (_SPLITS | {"clean", "mic", "ios", "android"}):
        found = task.sources[0][0] if len(task.sources) == 1 else None
    return found


def _of_language(task: Task, inner: Path, data: Path) -> str | None:
    """A test split of the task's language; a path that names no split or no language is taken at its word."""
    root = data if data.is_dir() else data.parent
    given = path_words(root, root / inner)
    language = task.id.split("-")[-1]
    if given & _SPLITS and "test" not in given:
        return None
    every = frozenset().union(*_LANGUAGES.values(), _OTHER_CHINESE)
    named = words("/".join(inner.parts)) & every or given & every  # the folder that was given may be called anything
    is_mine = bool(named & _LANGUAGES[language]) and not (language == "zh" and named & _OTHER_CHINESE)
    return task.sources[0][0] if is_mine or not named else None


def _of_direction(task: Task, inner: Path, data: Path) -> str | None:
    """Files below en_zh-CN, or called so; what stands nearest to the file counts."""
    found: list[tuple[str, str]] = []
    for name in (*inner.parts[::-1], data.name):
        found = found or _DIRECTION.findall(name.lower().replace("zh-cn", "zh"))
    _, source, target = task.id.split("-")
    if (source, target) not in found:
        return None
    root = data if data.is_dir() else data.parent
    given = path_words(root, root / inner) | {source, target}
    return source_with(task, given if given & {"dev", "test", "train"} else given | {"test"})


def _of_mmau(task: Task, inner: Path, data: Path) -> str | None:
    given = words("/".join((data.name, *inner.parts)))
    if task.id == "mmau-test":
        return task.id if "test" in given and "mini" not in given else None
    says_v05 = bool({"v05", "05"} & given)
    return task.id if ("mini" in given or says_v05) and says_v05 <= (task.id == "mmau-mini") else None


def _only(task: Task, inner: Path, data: Path) -> str | None:
    """All of it, whatever the files are called."""
    return task.sources[0][0] if task.sources else task.id


def _read_speech(task: Task, row: Row, source: str) -> Example:
    if task.id == "fleurs-zh":
        name = first_name(row.columns, (speech.FLEURS_TEXT, *TEXT))
        reference = text_of(row.columns.get(name)) if name else None
        sound = row.sound.name.rsplit("#", 1)[-1] if row.sound else row.id  # `id` is the sentence's, read by several
        own = Answered(source, reference, group=speaker_of(row.columns), extra={"reference_column": name})
        return example(task, row, own, id=sound.rsplit("/", 1)[-1] or row.id)
    read = read_asr(task, row, source)
    return read if read.group else replace(read, group=group_of(task, row.id))


def _read_translation(task: Task, row: Row, source: str) -> Example:
    names = ("translation", "gt", "target", "answer", "text")
    reference = text_of(first(row.columns, names))
    if reference is None:
        raise DatasetError(f"{row.where} has no translation; expected a column {', '.join(names[:4])}.")
    return example(task, row, Answered(source, reference, group=speaker_of(row.columns)))


def _read_emotion(task: Task, row: Row, source: str) -> Example:
    dialogue = first(row.columns, ("dialogue_id",))
    group = "" if dialogue is None else f"{source}_dia{dialogue}"
    return example(task, row, Answered(source, labels.emotion_of(row.columns), group=group))


def _read_vocal_sound(task: Task, row: Row, source: str) -> Example:
    value = first(row.columns, ("answer", "label", "labels", "gt"))
    name = row.sound.name.rsplit("#", 1)[-1].rsplit("/", 1)[-1] if row.sound else ""
    speaker = speaker_of(row.columns) or (name.split("_")[0] if name.count("_") >= 2 else "")
    return example(task, row, Answered(source, labels.vocal_sound(value) if value is not None else None, group=speaker))


def _asked(read: questions.Reader) -> Reader:
    return lambda task, row, source: read(task, row)


_FAMILIES: dict[str, tuple[Chooser, Reader]] = {
    "librispeech": (_by_words, _read_speech),
    "aishell2": (_by_words, _read_speech),
    "cv15": (_of_language, _read_speech),
    "fleurs": (_of_language, _read_speech),
    "covost2": (_of_direction, _read_translation),
    "meld": (_by_words, _read_emotion),
    "vocalsound": (_by_words, _read_vocal_sound),
    "airbench-chat": (_only, _asked(questions.read_chat)),
    "airbench-foundation": (_only, _asked(questions.read_foundation)),
    "mmau": (_of_mmau, _asked(questions.read_choices)),
    "mmar": (_only, _asked(questions.read_choices)),
    "mmsu": (_only, _asked(questions.read_choices)),
    "voicebench": (spoken.voicebench_source, spoken.read_voicebench),
    "openaudiobench": (spoken.openaudiobench_source, spoken.read_openaudiobench),
    "qa": (_only, lambda task, row, source: read_qa(task, row)),
}
