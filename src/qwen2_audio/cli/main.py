"""Entry point of `qwen2-audio`: imports only the module of the command that is run.

`--help` and `--version` are answered from the table below, without importing anything. A user's mistake ends in one
sentence on stderr and exit status 2.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module

from ..errors import Qwen2AudioError, did_you_mean
from .exit_codes import INTERRUPTED as INTERRUPTED
from .exit_codes import MISTAKE as MISTAKE
from .renamed import with_new_names

COMMANDS = {
    "demo": "voice chat, audio analysis and a batch on the bundled checkpoint and clips",
    "ask": "ask about one or several clips; streams the answer to stdout",
    "chat": "a conversation in the terminal: text, clips, recordings",
    "transcribe": "sound of any length to text, subtitles and tables, with times",
    "translate": "what is said in sound of any length, in another language",
    "embed": "clips and texts as vectors, to compare and to search",
    "decide": "how likely each of some given answers is: one pass, nothing is written",
    "job": "one question to every clip of a corpus, resumable: run, status, retry, export, plan",
    "align": "when the words of a text that is known are said in a sound",
    "info": "a checkpoint's shape and memory, or a clip's length, audio tokens and spectrogram",
    "train": "fine-tune on conversations of your own: sft, dpo, a preview; or an aligner for times of words",
    "quantize": "write a checkpoint in 4 or 8 bits, for use on a CPU",
    "merge": "merge a LoRA adapter into its checkpoint",
    "eval": "how well a checkpoint or a server hears: the published benchmarks, or your own data",
    "serve": "a checkpoint behind the OpenAI API, and a page to talk to",
    "verify": "whether a checkpoint is whole and this machine computes what it should, in minutes",
    "bench": "how fast: a server under load, or one checkpoint on this machine",
}
USAGE = "Usage: qwen2-audio COMMAND [ARGUMENTS]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line `arguments` (default: sys.argv) and exit with its status."""
    _accept_any_bytes()
    try:
        status = run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader closed stdout; redirect it, so that the interpreter's flush at exit succeeds
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status)


def _accept_any_bytes() -> None:
    """Accept paths that are not UTF-8: read them with surrogate escapes, and print them with backslashes."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a program may have replaced it by another object
            stream.reconfigure(errors="surrogateescape" if stream is sys.stdin else "backslashreplace")


def run(arguments: list[str]) -> int:
    """Run the command line `arguments` and return its exit status."""
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if name in ("--help", "-h", "help"):
        print(root_help())
        return 0
    if name == "--version":
        from .. import __version__

        print(f"qwen2-audio {__version__}")
        return 0
    if name not in COMMANDS:
        kind = "option" if name.startswith("-") else "command"
        near = did_you_mean(name, list(COMMANDS))
        return _refuse(f"there is no {kind} {name!r}.{near} See qwen2-audio --help.")
    return _run_command(name, rest)


def root_help() -> str:
    """The text of `qwen2-audio --help`."""
    width = max(map(len, COMMANDS)) + 2
    commands = "\n".join(f"  {name:<{width}}{text}" for name, text in COMMANDS.items())
    return (
        f"{USAGE}\n\nHears speech, sound and music, answers in text.\n\nCommands:\n{commands}\n\n"
        "Options:\n  --version  print the version\n  --help     print this; after a command, its own options\n\n"
        "Without --model, $QWEN2_AUDIO_MODEL is used, else the bundled checkpoint.\n"
        "Results go to stdout, everything else to stderr. Exit status: 0 all done; 1 done, but some rows or\n"
        "files failed; 2 could not run as given; 3 a figure is out of bounds; 130 interrupted."
    )


def _run_command(name: str, arguments: list[str]) -> int:
    module = import_module(f".{name}", __package__)
    if name in ("eval", "job"):  # groups, whose commands have options of their own
        return int(module.run(arguments))
    if name == "bench" and (status := module.run_moved(arguments)) is not None:
        return int(status)
    if name in ("transcribe", "translate"):
        from .whisper_options import from_whisper

        try:
            arguments = from_whisper(name, arguments)
        except Qwen2AudioError as error:
            return _refuse(str(error))
    text = f"{COMMANDS[name][0].upper()}{COMMANDS[name][1:]}."
    return run_function(module.command, with_new_names(name, arguments), f"qwen2-audio {name}", text)


def run_function(command: Callable[..., object], arguments: list[str], program: str, text: str) -> int:
    """Call `command` with the options that its signature has, as typer reads them from `arguments`.

    `program` is what its help and its errors call it, `text` what its help begins with. Returns the exit status: what
    `command` returns, where that is a number.
    """
    import typer

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(help=text)(command)
    warnings.showwarning = _show_warning
    try:
        status = typer.main.get_command(app).main(arguments, prog_name=program, standalone_mode=False)
    except Qwen2AudioError as error:
        return _refuse(str(error))
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's errors have it: an unknown option, an invalid value
            raise
        return _refuse(f"{error.format_message().rstrip('.')}. See {program} --help.")
    return status if isinstance(status, int) else 0


def _refuse(sentence: str) -> int:
    print(f"qwen2-audio: {sentence}", file=sys.stderr)
    return MISTAKE


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    if issubclass(category, UserWarning):  # this package's warnings for users; others are for programmers
        print(f"qwen2-audio: {message}", file=sys.stderr)
