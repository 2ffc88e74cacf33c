"""What `transcribe` and `translate` share: sounds in, text to stdout as it comes, or files; progress; exit status."""

from __future__ import annotations

import json as json_lines
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import AudioError, ConfigError, NoCheckpointError
from . import terminal
from .sound_files import Sound, seconds_of, sounds_of
from .sound_progress import SoundProgress
from .terminal import note

if TYPE_CHECKING:
    from ..api.chat import AudioChat
    from ..longform.cues import CueShape
    from ..longform.journal import Journal
    from ..longform.speakers import Turn
    from ..longform.transcribe import Finished, Progress
    from ..longform.transcript import Transcript

FAILED = 1  # exit status: done, but some sounds failed


@dataclass(frozen=True)
class Wanted:
    """The options of both commands."""

    sounds: list[str]
    to: str | None = None
    output: str | None = None
    format: str | None = None
    language: str | None = None
    prompt: str | None = None
    temperature: float = 0.0
    no_vad: bool = False
    channels: str = "mix"
    window: float | None = None
    merge_gap: float | None = None
    no_fallback: bool = False
    max_line_width: int | None = None
    max_line_count: int | None = None
    max_cue_seconds: float | None = None
    max_characters_per_second: float | None = None
    force: bool = False
    strict: bool = False
    quiet: bool = False
    word_timestamps: bool = False
    speakers: str | None = None
    json: bool = False
    begin: str | None = None
    until: str | None = None
    png: bool = False

    @property
    def span(self) -> tuple[float, float | None]:
        """Seconds of the part that is heard. Raises ConfigError for one that has no length."""
        begin, end = seconds_of(self.begin, "--from") or 0.0, seconds_of(self.until, "--until")
        if end is not None and end <= begin:
            raise ConfigError(f"The part to hear ends at {end:g} s and begins at {begin:g} s; let it end later.")
        return begin, end

    @property
    def shape(self) -> CueShape | None:
        from ..longform.cues import CueShape

        shape = CueShape(self.max_line_width, self.max_line_count, self.max_cue_seconds, self.max_characters_per_second)
        return None if shape == CueShape() else shape


def run_options(options: Mapping[str, Any]) -> int:
    """`run` with a command's options by their names: those of `Wanted`, and those that say what is loaded."""
    wanted = {name: value for name, value in options.items() if name in Wanted.__dataclass_fields__}
    names = ("model", "device", "dtype", "adapter", "quantize", "aligner")
    loading = {name: options[name] for name in names if name in options}
    return run(Wanted(**wanted), loading)


def run(wanted: Wanted, loading: Mapping[str, Any]) -> int:
    """Transcribe; returns the exit status. What cannot work is refused before the model is loaded."""
    if not terminal.is_first():
        terminal.load_model(**loading)  # exits when the first process ends
    from ..longform.asking import Task
    from ..longform.transcribe import Listening, transcribe
    from ..longform.word_times_segments import SegmentTimes

    if wanted.word_timestamps:
        check_aligner(loading["model"], loading["aligner"])
    if wanted.channels not in ("mix", "split"):
        raise ConfigError(f"--channels is {wanted.channels!r}; expected mix or split.")
    begin, end = wanted.span
    sounds = sounds_of(wanted.sounds)
    writer = _Writer(wanted, sounds)
    task = Task(wanted.language, wanted.to, wanted.prompt, wanted.temperature, recover=not wanted.no_fallback)
    listening = Listening(everything=wanted.no_vad, split_channels=wanted.channels == "split", begin=begin, end=end)
    todo = [sound for sound in sounds if not writer.is_done(sound)]
    if not todo:
        return 0
    turns = turns_of(wanted.speakers, todo, alone=len(sounds) == 1)
    chat = terminal.load_model(**loading)
    settings = chat.transcription
    if settings.min_confidence is None and not wanted.quiet:
        note("Doubtful segments are not flagged: this checkpoint has no threshold for that; eval calibrate finds one.")
    if wanted.window is not None:
        settings = replace(settings, window_seconds=wanted.window)
    if wanted.merge_gap is not None:
        settings = replace(settings, merge_gap=wanted.merge_gap, merge=True)
    decided_by = {"task": asdict(task), "settings": asdict(settings), "heard": [wanted.no_vad, begin, end]}
    writer.journals = [writer.journal(sound, chat, loading, decided_by) for sound in todo]
    service = chat.service()
    times = SegmentTimes(service.aligner if wanted.word_timestamps else None, turns)
    pairs = [(sound.source, sound.name) for sound in todo]
    events = transcribe(service, pairs, task, settings, listening, times=times, journals=writer.journals)
    return _follow(events, todo, writer, wanted)


def check_aligner(model: str | None, aligner: str | None) -> None:
    """Raises ConfigError, before a model is loaded, where its folder has no aligner and none is given."""
    from ..checkpoint.locate import find
    from ..longform.settings import ALIGNER
    from ..longform.word_times import missing_aligner

    folder = Path(find(model))
    if aligner is None and folder.is_dir() and not (folder / ALIGNER).is_file():
        raise ConfigError(missing_aligner(str(folder)))


def turns_of(path: str | None, sounds: list[Sound], *, alone: bool) -> list[tuple[Turn, ...]] | None:
    """Who speaks in each of the sounds, by a file in RTTM; None without one. Raises ConfigError."""
    if path is None:
        return None
    from ..longform.speakers import Speakers

    known = Speakers.read(path)
    return [known.turns_of(sound.name, alone=alone) for sound in sounds]


def _follow(events: Iterator[Progress | Finished], sounds: list[Sound], writer: _Writer, wanted: Wanted) -> int:
    """Print and write what comes; returns the exit status."""
    from ..longform.transcribe import Progress

    started, total, flags, failed = time.perf_counter(), 0.0, Counter[str](), 0
    heard = 0.0
    with SoundProgress(quiet=wanted.quiet) as progress, writer.interrupted():
        for event in events:
            sound = sounds[event.source]
            if isinstance(event, Progress):
                for segment in event.segments:
                    progress.pause()
                    writer.segment(segment)
                progress.show(sound.name, event.position, event.seconds)
                continue
            progress.pause()
            talk = event.transcript
            for segment in talk.segments:  # only the whole sound says which are in another language
                flags.update(segment.flags)
            total += max(0.0, talk.seconds - wanted.span[0])
            heard += talk.seconds - sum(end - start for start, end in talk.skipped)
            for sentence in talk.notes:
                note(f"{sound.name}: {sentence}")
            error = event.error or writer.finish(sound, talk)
            if error is not None:
                failed += 1
                writer.failed(sound, talk, error, writer.journals[event.source])
            elif (journal := writer.journals[event.source]) is not None:
                journal.remove()
    if not wanted.quiet:
        _summarise(total, heard, time.perf_counter() - started, flags, wanted)
    return FAILED if failed or (wanted.strict and flags) else 0


def _summarise(total: float, heard: float, seconds: float, flags: Counter[str], wanted: Wanted) -> None:
    text = f"{total:.1f} s of sound, {heard:.1f} s heard"
    if not wanted.no_vad and total - heard >= 0.05:
        text += f", {total - heard:.1f} s without speech skipped (--no-vad hears them)"
    note(f"{text}; {total / max(seconds, 1e-3):.1f} times as fast as it is.")
    if flags:
        note("Flagged segments: " + ", ".join(f"{count} {name}" for name, count in sorted(flags.items())) + ".")


class _Writer:
    """Where transcripts go: stdout as their segments come, stdout whole, or files."""

    def __init__(self, wanted: Wanted, sounds: list[Sound]) -> None:
        """Raises ConfigError for formats and shapes that cannot work."""
        from ..longform.formats import formats_of

        self._wanted, self._shape = wanted, wanted.shape
        self.journals: list[Journal | None] = []
        self._identity: dict[str, Any] | None = None
        self._formats = formats_of([wanted.format or "txt"])
        self._folder = Path(wanted.output or ".") if wanted.output or (len(sounds) > 1 and not wanted.json) else None
        if self._folder is None and len(self._formats) > 1:
            raise ConfigError("Several formats are files, not one text; give --output FOLDER.")
        if wanted.json and wanted.format is not None and self._folder is None:
            raise ConfigError("--json and --format both say what stdout gets; leave one of them out, or give --output.")
        if "ctm" in self._formats and not wanted.word_timestamps:
            needs = "give --word-timestamps" if wanted.to is None else "a translation's words have none"
            raise ConfigError(f"ctm holds a time for each word; {needs}, or choose another format.")
        if wanted.png:
            from ..audio.spectrogram import matplotlib_canvas

            matplotlib_canvas()
            if "-" in wanted.sounds:
                raise ConfigError("--png reads a sound a second time, and stdin is read once; save it to a file.")
        if self._folder is not None:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(f"--output {self._folder} cannot be made: {error.strerror}.") from error
        self._as_it_comes = self._folder is None and self._formats == ["txt"] and not wanted.json

    def paths(self, sound: Sound, infix: str = "") -> list[tuple[str, Path]]:
        """Each format with the file it is written to."""
        from ..longform.formats import ENDINGS

        picture = [("png", (self._folder or Path()) / f"{sound.stem}.png")] if self._wanted.png and not infix else []
        if self._folder is None:
            return picture
        texts = [(format, self._folder / f"{sound.stem}{infix}{ENDINGS[format]}") for format in self._formats]
        return texts + picture

    def journal(
        self, sound: Sound, chat: AudioChat, loading: Mapping[str, Any], decided_by: Mapping[str, Any]
    ) -> Journal | None:
        """Where the windows of a sound are kept until its files are written; says how many an earlier run left."""
        from .. import __version__
        from ..checkpoint.fingerprint import weights_fingerprint
        from ..checkpoint.hub import resolve
        from ..checkpoint.weights import PATTERNS
        from ..longform.journal import Journal

        if self._folder is None:
            return None
        if self._identity is None:
            adapter = loading["adapter"]
            try:
                folders = [resolve(chat.name, PATTERNS, local_files_only=True), *([Path(adapter)] if adapter else [])]
            except (
                NoCheckpointError
            ):  # weights that are no folder are not told apart, and nothing is kept of their work
                return None
            precision = {"dtype": str(chat.dtype), "quantize": loading["quantize"]}
            weights = weights_fingerprint(folders, precision)
            self._identity = {"version": __version__, "weights": weights, **decided_by}
        journal = Journal(self._folder / f"{sound.stem}.unfinished.jsonl", self._identity)
        if journal.found:
            note(f"{sound.name}: {journal.found} windows were heard before, by {journal.path}; the others follow.")
        return journal

    @contextmanager
    def interrupted(self) -> Iterator[None]:
        """Says, after an interrupt, what is kept."""
        try:
            yield
        except KeyboardInterrupt:
            kept = [str(journal.path) for journal in self.journals if journal is not None and journal.path.exists()]
            if kept:
                note(f"Interrupted: what was heard is in {', '.join(kept)}, and the same command goes on from there.")
            raise

    def is_done(self, sound: Sound) -> bool:
        """Whether all files about a sound exist, and are kept; says so."""
        paths = [path for _, path in self.paths(sound)]
        if self._wanted.force or self._folder is None or not all(path.exists() for path in paths):
            return False
        note(f"{sound.name}: {', '.join(map(str, paths))} exists and is kept; --force writes it anew.")
        return True

    def segment(self, segment: Any) -> None:
        """A segment has come."""
        if self._as_it_comes and segment.text:
            label = "" if segment.channel is None else f"Channel {segment.channel + 1}: "
            label = label if segment.speaker is None else f"{segment.speaker}: "
            print(label + " ".join(segment.text.split()), flush=True)

    def finish(self, sound: Sound, talk: Transcript) -> Exception | None:
        """All of a sound has come: print or write it. Returns what kept a file from being written."""
        from ..longform.formats import write

        if self._wanted.json:
            print(json_lines.dumps({"source": sound.name, **talk.to_dict()}, ensure_ascii=False), flush=True)
        elif self._folder is None and not self._as_it_comes:
            print(write(talk, self._formats[0], self._shape), end="", flush=True)
        return self._write(talk, self.paths(sound), sound)

    def failed(self, sound: Sound, talk: Transcript, error: Exception, journal: Journal | None) -> None:
        """Say what ended a sound, and keep what was done of it."""
        sentence = error.sentence if isinstance(error, AudioError) else _sentence(error)
        note(f"qwen2-audio: {'' if sound.name in sentence else f'{sound.name}: '}{sentence}")
        if self._wanted.json:
            value = {"source": sound.name, "error": sentence, **talk.to_dict()}
            print(json_lines.dumps(value, ensure_ascii=False), flush=True)
        if isinstance(error, OSError) and journal is not None and journal.path.exists():
            note(f"{sound.name}: what was heard is kept in {journal.path}; make room, and run the same command again.")
        if talk.segments and not isinstance(error, OSError):
            paths = self.paths(sound, ".partial")
            if paths and self._write(talk, paths, sound) is None:
                note(f"{sound.name}: what was heard until then is in {', '.join(str(path) for _, path in paths)}.")

    def _write(self, talk: Transcript, paths: list[tuple[str, Path]], sound: Sound) -> Exception | None:
        from ..longform.picture import save_picture

        for format, path in paths:
            if path.exists() and not self._wanted.force:
                note(f"{path} exists and is kept; --force writes it anew.")
                continue
            try:
                if format == "png":
                    save_picture(talk, sound.source, path, self._wanted.span)
                else:
                    talk.save(path, format, self._shape)
            except OSError as error:
                return OSError(error.errno, f"{path} could not be written: {error.strerror or error}.")
            except AudioError as error:  # a picture needs the sound a second time
                return error
        return None


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
