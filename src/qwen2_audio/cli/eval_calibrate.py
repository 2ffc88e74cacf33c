"""`qwen2-audio eval calibrate`: the confidence below which a checkpoint's transcripts are flagged; whether the
probabilities of decisions mean what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import AudioError, ConfigError
from .exit_codes import SOME_FAILED
from .terminal import Adapter, Device, DType, Json, Model, Quantize, as_json, counting, load_model, note

if TYPE_CHECKING:
    from ..api.chat import AudioChat
    from ..evaluate.calibrate import Calibration, Labelled
    from ..evaluate.rows import Selection

NANO, NANO_ROWS = "nano", 300
DECISIONS, SOUNDS = "decisions", 308

Task = Annotated[
    str,
    typer.Argument(
        metavar="TASK|nano|decisions",
        help="A task of transcripts, such as asr; nano: its own examination; decisions: of nano's held-out sounds.",
    ),
]
Data = Annotated[Path | None, typer.Option(help="Where the task's rows are, in any layout of `eval list`.")]
Language = Annotated[str | None, typer.Option("--lang", help="The language that is spoken, for the task asr.")]
Limit = Annotated[
    int | None, typer.Option(help="The first N rows; of nano N for each kind of voice; sounds to decide about.", min=1)
]
Sample = Annotated[int | None, typer.Option(help="N rows, drawn by --seed.", min=1)]
Seed = Annotated[int, typer.Option(help="Of --sample: the same seed draws the same rows.")]
FalseAlarms = Annotated[float, typer.Option(help="The share of right transcripts that may be flagged, at most.")]
Out = Annotated[
    Path | None,
    typer.Option(help="Write the settings here, and not beside the checkpoint.", show_default=False),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the table, and write nothing.")]


def command(
    task: Task,
    data: Data = None,
    model: Model = None,
    adapter: Adapter = None,
    quantize: Quantize = None,
    device: Device = "auto",
    dtype: DType = "auto",
    lang: Language = None,
    limit: Limit = None,
    sample: Sample = None,
    seed: Seed = 0,
    false_alarms: FalseAlarms = 0.05,
    out: Out = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    from ..evaluate.calibrate import calibrate, judge
    from ..evaluate.rows import Selection
    from ..evaluate.word_errors import load_levenshtein

    if task in (NANO, DECISIONS) and (data or sample or lang):
        raise ConfigError(f"The clips of {task} are rendered when it is run; leave --data, --sample and --lang out.")
    if task == DECISIONS:
        if out or dry_run:
            raise ConfigError("decisions are measured and write no settings; leave --out and --dry-run out.")
        chat = load_model(model, device=device, dtype=dtype, adapter=adapter, quantize=quantize)
        return _decisions(chat, limit or SOUNDS, json=json)
    load_levenshtein()
    if task == NANO:
        source = _nano_source(limit or NANO_ROWS)
    else:
        source = _task_source(task, data, lang, Selection(limit, sample, seed))
    chat = load_model(model, device=device, dtype=dtype, adapter=adapter, quantize=quantize)
    with _progress(source.rows) as advance:
        judged, left_out = judge(chat.service(), chat.transcription, source.clips(), source.words_of, advance)
    for reasons in (source.long, source.failed):
        if reasons:
            note(f"{len(reasons)} rows are left out, the first of them {reasons[0]}")
    found = calibrate(judged, false_alarms=false_alarms, left_out=left_out)
    written = None if dry_run else _write(chat.name, found.threshold, out)
    if json:
        print(as_json({**found.to_dict(), "file": None if written is None else str(written)}))
    else:
        _show(found)
    if written is not None:
        note(f"min_confidence is {found.threshold:g} in {written}.")
        if written.name != "transcription.json":
            note("It acts as transcription.json in the checkpoint's folder.")
    return SOME_FAILED if source.failed else 0


def _decisions(chat: AudioChat, count: int, *, json: bool) -> int:
    from ..evaluate.nano.decisions import decide_kinds

    with counting("Deciding", count) as advance:
        found = decide_kinds(chat, count, advance)
    print(as_json(asdict(found)) if json else "\n".join(found.lines()))
    return 0


@dataclass(frozen=True)
class _Source:
    """Where clips come from. `long` and `failed`, complete when they have been read: what was left out, and why."""

    clips: Callable[[], Iterator[Labelled]]
    words_of: Callable[[str], Sequence[str]]
    rows: int
    long: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def _nano_source(count: int) -> _Source:
    from ..evaluate.calibrate import Labelled
    from ..evaluate.nano.questions import clips_to_transcribe
    from ..evaluate.nano.speech.engines import check_engines
    from ..evaluate.nano.world.utterance import plain

    check_engines()

    def clips() -> Iterator[Labelled]:
        return (Labelled(wave, plain(clip.text).split()) for wave, clip in clips_to_transcribe(count))

    return _Source(clips, lambda text: plain(text).split(), 3 * count)


def _task_source(name: str, data: Path | None, language: str | None, selection: Selection) -> _Source:
    """The rows of a task of transcripts. Raises ConfigError for any other, DatasetError for data that cannot be
    read."""
    from ..evaluate.calibrate import Labelled
    from ..evaluate.clips import decode_clip, read_clip
    from ..evaluate.registry.tasks import find_task
    from ..evaluate.score.transcripts import transcript_tokens
    from .eval_run import find_rows

    if find_task(name, language=language).scorer not in ("wer", "cer"):
        raise ConfigError(f"{name} has no transcripts; expected a task that counts word errors, such as asr.")
    ((task, examples),) = find_rows(name, data, language)
    rows, words_of = selection.rows(examples), partial(transcript_tokens, task)
    long, failed = list[str](), list[str]()

    def clips() -> Iterator[Labelled]:
        for _, example in rows:
            try:
                clip = decode_clip(read_clip(example.sound))
            except AudioError as error:
                failed.append(f"{example.id}: {error.sentence}")
                continue
            if clip.is_cut:
                long.append(f"{example.id}: it lasts {clip.seconds:.1f} s, over 30 s.")
            elif example.reference:
                yield Labelled(clip.waveform, words_of(example.reference))

    return _Source(clips, words_of, len(rows), long, failed)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr, and what moves it on."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("transcribing", total=total)
        yield partial(progress.advance, bar)


def _write(name: str, threshold: float, out: Path | None) -> Path:
    """Beside the checkpoint, which may lie in the hub's cache; where that cannot be written, in the current folder."""
    from ..checkpoint.hub import resolve
    from ..evaluate.calibrate import write_threshold
    from ..longform.settings import FILE

    folder = resolve(name, [FILE], local_files_only=True)
    return write_threshold(folder, threshold, out or Path(f"{Path(name).name}.{FILE}"), beside=out is None)


def _show(found: Calibration) -> None:
    from rich.console import Console
    from rich.table import Table

    out = Table(title="How far confidence tells", caption=f"{found.left_out} more were flagged by another guard.")
    for name in ("confidence", "transcripts", "right", "words wrong"):
        out.add_column(name, justify="right")
    for one in found.bins:
        share = f"{one.right:,} ({one.right / one.rows:.0%})"
        out.add_row(f"{one.low:.3f} to {one.high:.3f}", f"{one.rows:,}", share, f"{one.word_errors:.1%}")
    Console().print(out)
    print(
        f"Below {found.threshold:g} a transcript is doubtful: chosen to flag the most wrong ones, and at most "
        f"{found.false_alarms:.0%} of the right ones."
    )
    print(
        f"It flags {found.flagged_wrong} of {found.wrong} wrong and {found.flagged_right} of {found.right} right ones; "
        f"chosen on one half of the rows, {found.unseen_wrong:.0%} and {found.unseen_right:.0%} of the other half."
    )
    print(f"A right transcript has more confidence than a wrong one in {found.auc:.1%} of pairs.")
