"""`qwen2-audio chat`: a conversation from the terminal or from a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import Qwen2AudioError
from ..longform.questions.policy import BY_PARTS, Policy, parse_policy
from ..longform.questions.wording import note_line
from ..types import Chunk, Message, Part, SamplingParams
from . import long_clips, terminal
from .chat_input import COMMANDS, ChatCommand, Turn, parse, seconds_of, unheard_files
from .terminal import note

if TYPE_CHECKING:
    from ..api.chat import AudioChat
    from ..longform.questions.recordings import Conversation as Recorded

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
    long: long_clips.Long = "parts",
    device: terminal.Device = "auto",
    dtype: terminal.DType = "auto",
    quantize: terminal.Quantize = None,
) -> int:
    params = SamplingParams(max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k, seed=seed)
    policy = parse_policy(long)
    chat = terminal.load_model(model, device, dtype, adapter, quantize)
    if policy.kind == "transcript":
        long_clips.keep_transcripts(chat, adapter, quantize)
    conversation = Conversation(chat, params, system, policy)
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
    policy: Policy = BY_PARTS  # of clips that are longer than is heard at once
    messages: list[Message] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)  # of the last such clip

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        from ..inputs.messages import system

        self.messages = [] if self.system is None else [system(self.system)]
        self.parts = []

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
        elif command.name == "/parts":
            note("".join(map(note_line, self.parts)).rstrip("\n") or "No clip of more than 30 s was heard yet.")
        elif command.name == "/help":
            note(HELP)
        elif command.name == "/rec":
            from .recording import record

            seconds = seconds_of(command.argument)
            note(f"Recording {seconds:g} s ...")
            self._answer(None, [record(seconds)], ["the recording"])
        return command.name != "/quit"

    def _answer(self, text: str | None, sources: list[Any], names: list[str]) -> None:
        from ..inputs.clip import load_clip
        from ..inputs.messages import assistant, user
        from ..longform.questions.recordings import read_conversation
        from ..longform.questions.submit import check
        from ..longform.transcribe import LIMITS

        turn = user(text, audio=sources or None)
        read = read_conversation([*self.messages, turn], LIMITS, load=True)
        assert read is not None
        with closing(read):
            if read.recordings and self.policy.kind == "refuse":
                load_clip(read.recordings[0].source, read.recordings[0].number)  # says so
            if read.recordings:
                check(read, self.policy)
            long_clips.announce(read, names, self.policy)
            if read.recordings:
                self._answer_long(read, turn, text)
                return
            answer = _print_until_interrupted(self.chat.stream(read.messages, self.params), spinner=True)
        if answer:
            self.messages = [*read.messages, assistant(answer)]
        else:
            note("(no answer; this turn is dropped)")

    def _answer_long(self, read: Recorded, turn: Message, text: str | None) -> None:
        """Later turns have notes in the place of a clip that was heard by parts, so that they take seconds."""
        from ..inputs.messages import assistant

        parts = list[Part]()
        chunks = self.chat.stream(read.messages, self.params, long=self.policy.value)
        answer = _print_until_interrupted(long_clips.without_parts(chunks, read, self.policy, parts))
        if not answer:
            note("(no answer; this turn is dropped)")
            return
        self.parts = parts
        if self.policy.kind == "parts":
            turn = long_clips.remembered(text, parts)
        self.messages = [*self.messages, turn, assistant(answer)]


def _print_until_interrupted(chunks: Iterator[Chunk], *, spinner: bool = False) -> str:
    """Print an answer as it arrives, and return it. Ctrl-C stops the answer, not the program."""
    texts: list[str] = []
    try:
        with terminal.waiting("Listening") if spinner else nullcontext():
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
