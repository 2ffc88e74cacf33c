"""Entry of the `qwen2-audio` command: finds the command asked for and imports that one only.

Help and version of the root are printed from the table below, so that they are there at once. A user's mistake ends in
one sentence on stderr and exit status 2.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

from ..errors import Qwen2AudioError, did_you_mean
from .renamed import with_new_names

COMMANDS = {
    "demo": "voice chat, audio analysis and a batch on the bundled checkpoint and clips",
    "ask": "ask about one clip or several; the answer goes to stdout as it comes",
    "chat": "a conversation in the terminal: text, clips, recordings",
    "info": "a checkpoint's shape and memory, or what the model will hear of a sound file",
    "train": "fine-tune on conversations of your own: sft, dpo, or preview what would be learnt",
    "quantize": "a checkpoint in 4 or 8 bits, for a plain CPU",
    "merge": "a checkpoint and its LoRA adapter become one checkpoint",
    "eval": "how well a checkpoint hears, on the bundled model's world",
    "serve": "a checkpoint behind the OpenAI API, and a page to talk to",
    "bench": "how fast this package is, next to the reference library",
}
USAGE = "Usage: qwen2-audio COMMAND [ARGUMENTS]"
MISTAKE, INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line `arguments` (default: this process's) and exit with its status."""
    _take_any_bytes()
    try:
        status = run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read stdout has seen enough; nothing may be written to it any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status)


def _take_any_bytes() -> None:
    """Paths need not be UTF-8: they come in with their bytes, and are shown escaped."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not where a program has put something else in its place
            stream.reconfigure(errors="surrogateescape" if stream is sys.stdin else "backslashreplace")


def run(arguments: list[str]) -> int:
    """As `main`, but returns the exit status."""
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
        "Results go to stdout, everything else to stderr. Exit status 2: a mistake in what was asked."
    )


def _run_command(name: str, arguments: list[str]) -> int:
    import typer

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(name, help=f"{COMMANDS[name][0].upper()}{COMMANDS[name][1:]}.")(
        import_module(f".{name}", __package__).command
    )
    warnings.showwarning = _show_warning
    arguments = with_new_names(name, arguments)
    try:
        status = typer.main.get_command(app).main(arguments, prog_name=f"qwen2-audio {name}", standalone_mode=False)
    except Qwen2AudioError as error:
        return _refuse(str(error))
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's own: an unknown option, a value of the wrong kind
            raise
        return _refuse(f"{error.format_message().rstrip('.')}. See qwen2-audio {name} --help.")
    return status if isinstance(status, int) else 0


def _refuse(sentence: str) -> int:
    print(f"qwen2-audio: {sentence}", file=sys.stderr)
    return MISTAKE


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    if issubclass(category, UserWarning):  # what this package says to people; the rest is for programmers
        print(f"qwen2-audio: {message}", file=sys.stderr)
