"""`qwen2-audio chat`: a conversation from the terminal or from a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import Qwen2AudioError
from ..types import Chunk, Message, SamplingParams
from . import terminal
from .chat_input import COMMANDS, ChatCommand, Turn, parse, seconds_of, unheard_files
from .terminal import heard_line, note

if TYPE_CHECKING:
    from ..api.chat import AudioChat

HELP = "A line is text, clips (paths or URLs), or clips and then text.\n" + "\n".join(
    f"  {name:<6} {text}" for name, text in COMMANDS.items()
)


def command(
    model: terminal.Model = None,
    adapter: terminal.Adapter = None,
    max_tokens: terminal.MaxTokens = None,
    temperature: terminal.Temperature = None,
    top_p: terminal.TopP = None,
    top_k: terminal.TopK = None,
    seed: terminal.Seed = None,
    system: terminal.System = None,
    device: terminal.Device = "auto",
    dtype: terminal.DType = "auto",
    quantize: terminal.Quantize = None,
) -> int:
    params = SamplingParams(max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k, seed=seed)
    conversation = Conversation(terminal.load_model(model, device, dtype, adapter, quantize), params, system)
    interactive = sys.stdin.isatty()
    note(HELP if interactive else "Reading lines from stdin.")
    refused = False
    for line in _lines(interactive):
        try:
            if not conversation.handle(line):
                break
        except Qwen2AudioError as error:
            note(f"qwen2-audio: {error}")
            refused = True
        except KeyboardInterrupt:  # while recording or reading a clip
            note("\n(interrupted)")
    return 2 if refused and not interactive else 0


def _lines(interactive: bool) -> Iterator[str]:
    if not interactive:
        yield from sys.stdin
        return
    import contextlib

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (gives input() a history)
    while True:
        try:
            yield input("you> ")
        except EOFError:
            return
        except KeyboardInterrupt:
            note("\n/quit leaves.")


@dataclass
class Conversation:
    """The state of the conversation: the model, the options, and the messages so far."""

    chat: AudioChat
    params: SamplingParams
    system: str | None = None
    messages: list[Message] = field(default_factory=list)
    clips: int = 0  # in `messages`

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        from ..inputs.messages import system

        self.messages = [] if self.system is None else [system(self.system)]
        self.clips = 0

    def handle(self, line: str) -> bool:
        """Process a line; False for /quit. Raises Qwen2AudioError, after which the conversation is as before."""
        parsed = parse(line)
        if isinstance(parsed, Turn):
            for word in unheard_files(parsed):
                note(f"{word} is inside the text and is not heard; put clips first.")
            self._answer(parsed.text, list(parsed.clips), list(parsed.clips))
        elif isinstance(parsed, ChatCommand):
            return self._run(parsed)
        return True

    def _run(self, command: ChatCommand) -> bool:
        if command.name == "/new":
            self.restart()
            note("A new conversation.")
        elif command.name == "/help":
            note(HELP)
        elif command.name == "/rec":
            from .recording import record

            seconds = seconds_of(command.argument)
            note(f"Recording {seconds:g} s ...")
            self._answer(None, [record(seconds)], ["the recording"])
        return command.name != "/quit"

    def _answer(self, text: str | None, sources: list[Any], names: list[str]) -> None:
        from ..audio import SAMPLE_RATE
        from ..inputs.clip import load_clip
        from ..inputs.messages import assistant, user

        clips = [load_clip(source, self.clips + number) for number, source in enumerate(sources, 1)]
        waveforms = [(clip.waveform, SAMPLE_RATE) for clip in clips]
        messages = [*self.messages, user(text, audio=waveforms or None)]
        chunks = self.chat.stream(messages, self.params)
        for name, clip in zip(names, clips, strict=True):
            note(heard_line(name, clip.heard.seconds, clip.heard.tokens))
        answer = _print_until_interrupted(chunks)
        if answer:
            self.messages = [*messages, assistant(answer)]
            self.clips += len(clips)
        else:
            note("(no answer; this turn is dropped)")


def _print_until_interrupted(chunks: Iterator[Chunk]) -> str:
    """Print an answer as it arrives, and return it. Ctrl-C stops the answer, not the program."""
    texts: list[str] = []
    try:
        with terminal.waiting("Listening"):
            chunk = next(chunks)
        while chunk.finish_reason is None:
            texts.append(chunk.text)
            print(chunk.text, end="", flush=True)
            chunk = next(chunks)
        print()
        if chunk.finish_reason in ("length", "context"):
            note(f"(stopped: {chunk.finish_reason}; see --max-tokens and /new)")
    except KeyboardInterrupt:
        print()
        note("(interrupted)")
    finally:
        chunks.close()  # type: ignore[attr-defined]
    return "".join(texts)
