"""A conversation to the model's inputs: ids with one position per audio token, and each clip's log-mel.

Only the template's control tokens act. In the text of a message, `<|im_end|>` does not end a turn and `<|AUDIO|>` does
not stand for a clip: both are encoded as ordinary text.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np

from ..errors import PromptError
from ..text import chat_template as chat
from ..text.chat_template import AUDIO, AUDIO_BOS, AUDIO_EOS, AudioSlot, Segment
from ..text.rendering import TemplateInputs, builtin_view, render, render_template
from ..text.template_files import choose_template
from ..text.tokenizer import Tokenizer
from ..types import Ending, Heard, Message
from .clip import AudioClip, load_clip
from .processor import Qwen2AudioProcessor

LogMels = Callable[[Sequence[np.ndarray], int], list[np.ndarray]]

# Replaces a text while a checkpoint's own template is rendered: the text's number between private-use characters.
TEXT_SENTINEL = "\ue5a0[0-9]+\ue5a1"
_LANGUAGE_TAG = re.compile(r"(<\|[a-z]{2,3}\|>)")  # <|en|> in the official prompts of base checkpoints
_PROBES: tuple[list[Message], ...] = (
    [{"role": "user", "content": [{"type": "audio", "audio": "a"}, {"type": "text", "text": "b"}]}],
    [
        {"role": "system", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": [{"type": "text", "text": "d"}, {"type": "audio", "audio": "e"}]},
    ],
)


@dataclass(frozen=True)
class Prompt:
    """One conversation as inputs of the model."""

    ids: list[int]  # [T], with one <|AUDIO|> per audio token
    clips: list[np.ndarray]  # float32 [mel bins, F_i]
    frames: list[int]  # valid mel frames of each clip
    heard: tuple[Heard, ...]

    @property
    def audio_tokens(self) -> int:
        return sum(clip.tokens for clip in self.heard)

    @property
    def num_uncounted(self) -> int:
        """Positions that `max_length` and `min_length` do not count: they count each clip as one position."""
        return self.audio_tokens - len(self.heard)

    @cached_property
    def digests(self) -> list[int]:
        """A negative number for each clip, the hash of its log-mel."""
        return [digest(clip, frames) for clip, frames in zip(self.clips, self.frames, strict=True)]

    def with_ids(self, ids: list[int]) -> Prompt:
        """Other ids with as many positions for the same clips, whose digests are not computed again."""
        prompt = replace(self, ids=ids)
        prompt.__dict__["digests"] = self.digests
        return prompt

    def prefix_keys(self, audio_id: int) -> list[int]:
        """The ids [T] with each audio position replaced by its clip's digest: the key of the prefix cache."""
        digests = iter(
            [value for value, clip in zip(self.digests, self.heard, strict=True) for _ in range(clip.tokens)]
        )
        return [next(digests) if token == audio_id else token for token in self.ids]


def digest(clip: np.ndarray, frames: int) -> int:
    """A negative number, the 128-bit hash of a log-mel [mel bins, F] with `frames` valid frames."""
    shape = f"{clip.shape} {clip.dtype} {frames}".encode()
    return -1 - int.from_bytes(blake2b(clip.tobytes(), digest_size=16, key=shape).digest())


def custom_template(processor: Qwen2AudioProcessor) -> str | None:
    """The checkpoint's chat template, or None if it renders the same prompts as the built-in one."""
    template = _template_of(processor)
    if template is None:
        return None
    inputs = _inputs_of(processor.tokenizer)
    try:
        equal = all(
            render_template(template, probe, add_generation_prompt=True, inputs=inputs)
            == render(probe, add_generation_prompt=True)
            for probe in _PROBES
        )
    except PromptError:  # the template refuses the probe; the error is raised again for the user's first conversation
        equal = False
    return None if equal else template


def _template_of(processor: Qwen2AudioProcessor) -> str | None:
    """The processor's default template; None: the built-in one."""
    template = choose_template(processor.chat_template)
    return None if template == chat.BUILTIN_TEMPLATE else template


def _inputs_of(tokenizer: Tokenizer) -> TemplateInputs:
    return TemplateInputs(variables=tokenizer.special_tokens_map)


def template_for(messages: Sequence[Message], processor: Qwen2AudioProcessor, template: str | None) -> str | None:
    """`template`; or for what `custom_template` has not compared, other roles and fields, the processor's own."""
    known = all(
        isinstance(message, dict) and message.get("role") in chat.ROLES and set(message) <= set(chat.MESSAGE_KEYS)
        for message in chat.without_nones(messages)
    )
    return template if template is not None or known else _template_of(processor)


def check_conversation(messages: Sequence[Message], template: str | None) -> list[Any]:
    """The source of each clip of a conversation that is rendered in `template` (None: the built-in one).

    Raises PromptError as `check_messages`.
    """
    if template is None:
        return chat.check_messages(messages)
    return chat.check_messages(builtin_view(messages, template), template)


def build_prompt(
    messages: Sequence[Message],
    processor: Qwen2AudioProcessor,
    template: str | None = None,
    log_mels: LogMels | None = None,
    *,
    ending: Ending = "answer",
) -> Prompt:
    """Render and encode a conversation, and load its clips.

    Args:
        messages: the conversation, of which the last message is to be answered.
        processor: its tokenizer and feature extractor are used.
        template: a Jinja chat template; None: the built-in one.
        log_mels: computes the log-mels [mel bins, F_i] of waveforms; None: `audio.mel.log_mel`, on the CPU.
        ending: how the prompt ends.

    Raises:
        PromptError: malformed messages, or a template that cannot render them.
        AudioError: a clip that cannot be read, is empty, or is longer than 30 s.
    """
    messages = chat.without_nones(messages)
    template = template_for(messages, processor, template)
    clips = [load_clip(source, number) for number, source in enumerate(check_conversation(messages, template), 1)]
    return _prompt_of(_segments(messages, processor, template, ending), clips, processor, log_mels)


def reword_prompt(
    prompt: Prompt, messages: Sequence[Message], processor: Qwen2AudioProcessor, template: str | None = None
) -> Prompt:
    """The prompt of a conversation with the clips of `prompt`, in the same order; they are not read again."""
    messages = chat.without_nones(messages)
    template = template_for(messages, processor, template)
    check_conversation(messages, template)
    segments = _segments(messages, processor, template, "answer")
    ids, _ = encode_segments(segments, processor.tokenizer, [clip.tokens for clip in prompt.heard])
    return prompt.with_ids(ids)


def _segments(
    messages: Sequence[Message], processor: Qwen2AudioProcessor, template: str | None, ending: Ending
) -> Iterable[Segment]:
    if template is not None:
        return _segments_of_template(template, messages, processor.tokenizer, ending)
    return chat.render_segments(
        messages, add_generation_prompt=ending == "answer", continue_final_message=ending == "continued"
    )


def build_base_prompt(
    messages: Sequence[Message], processor: Qwen2AudioProcessor, log_mels: LogMels | None = None
) -> Prompt:
    """`<|audio_bos|><|AUDIO|><|audio_eos|>` and the prompt: a base checkpoint's form, from one message with one clip.

    A language tag of the prompt (`<|en|>`) is a control token. Raises PromptError for a tag that the
    tokenizer lacks and for another number of clips, and AudioError as `build_prompt`.
    """
    sources = chat.check_messages(messages)
    if len(messages) != 1 or len(sources) != 1:
        raise PromptError(f"A base checkpoint takes one message with one clip; found {len(sources)} clip(s).")
    clip = load_clip(sources[0], 1)
    prompt = "".join(part.get("text", "") for part in messages[0]["content"])
    segments = base_prefix(AudioSlot(1, sources[0], "the clip")) + split_controls(prompt, _LANGUAGE_TAG)
    return _prompt_of(segments, [clip], processor, log_mels)


def build_plain_prompt(message: Message, processor: Qwen2AudioProcessor, log_mels: LogMels | None = None) -> Prompt:
    """A message as it stands, in no template: each clip between `<|audio_bos|>` and `<|audio_eos|>`, and its texts.

    So MTEB embeds this model's inputs (its wrapper of Qwen2-Audio). Raises PromptError for a malformed or empty
    message, and AudioError as `build_prompt`.
    """
    clips = [load_clip(source, number) for number, source in enumerate(chat.check_messages([message]), 1)]
    content, segments = message["content"], list[Segment]()
    for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
        if part.get("type", "text") == "text" and "text" in part:
            segments.append(Segment(part["text"]))
        else:
            number = sum(segment.slot is not None for segment in segments) + 1
            segments += base_prefix(AudioSlot(number, None, f"part {number}"))
    prompt = _prompt_of(segments, clips, processor, log_mels)
    if not prompt.ids:
        raise PromptError("The text is empty; nothing would reach the model.")
    return prompt


def base_prefix(slot: AudioSlot) -> list[Segment]:
    """What the text of a base checkpoint begins with: its clip."""
    return [Segment(AUDIO_BOS, control=True), Segment(AUDIO, control=True, slot=slot), Segment(AUDIO_EOS, control=True)]


def split_controls(text: str, controls: re.Pattern[str], *, trained: bool = False) -> list[Segment]:
    """Text in which what matches `controls`, a pattern that is one group, is control tokens."""
    pieces = [piece for piece in controls.split(text) if piece]
    return [Segment(piece, control=bool(controls.fullmatch(piece)), trained=trained) for piece in pieces]


def _prompt_of(
    segments: Iterable[Segment], clips: Sequence[AudioClip], processor: Qwen2AudioProcessor, log_mels: LogMels | None
) -> Prompt:
    ids, _ = encode_segments(segments, processor.tokenizer, [clip.heard.tokens for clip in clips])
    bins = processor.feature_extractor.feature_size
    if log_mels is None:
        mels = [clip.log_mel(bins) for clip in clips]
    else:
        mels = log_mels([clip.waveform for clip in clips], bins)
    return Prompt(ids, mels, [clip.frames for clip in clips], tuple(clip.heard for clip in clips))


def _segments_of_template(
    template: str, messages: Sequence[Message], tokenizer: Tokenizer, ending: Ending
) -> Iterator[Segment]:
    """The segments of a conversation in the Jinja source `template`.

    The template is rendered with sentinels in place of the texts, so that control tokens in a text cannot act.
    """
    view = builtin_view(messages, template)
    slots = [segment.slot for segment in chat.render_segments(view) if segment.slot is not None]
    controls = sorted({*tokenizer.all_special_tokens, AUDIO}, key=len, reverse=True)
    sentinels = _Sentinels(controls)
    with_sentinels = [sentinels.of_message(message) for message in messages]
    inputs = _inputs_of(tokenizer)
    rendered = render_template(
        template,
        with_sentinels,
        add_generation_prompt=ending == "answer",
        continue_final_message=ending == "continued",
        inputs=inputs,
    )
    rendered_texts, clips, texts = set[int](), iter(slots), sentinels.texts
    if rendered.count(AUDIO) != len(slots):
        raise PromptError(
            f"The checkpoint's chat template has {rendered.count(AUDIO)} places for {len(slots)} clips; "
            "the model would not hear them all. Repair the template."
        )
    for part in re.split(f"({TEXT_SENTINEL}|{'|'.join(map(re.escape, controls))})", rendered):
        if re.fullmatch(TEXT_SENTINEL, part):
            number = int(part[1:-1])
            rendered_texts.add(number)
            yield Segment(texts[number])
        elif part in controls:
            yield Segment(part, control=True, slot=next(clips) if part == AUDIO else None)
        elif part:
            yield Segment(part)
    if missing := sentinels.required - rendered_texts:
        text = texts[min(missing)]
        raise PromptError(f"The checkpoint's chat template leaves out the text {text!r}; repair the template.")


class _Sentinels:
    """Puts sentinels in the place of texts. Attributes: `texts`; `required`, the numbers of those to be rendered."""

    def __init__(self, controls: Collection[str]) -> None:
        self.texts: list[str] = []
        self.required: set[int] = set()
        self._harmful = re.compile("|".join([*map(re.escape, controls), "[\ue5a0\ue5a1]"]))

    def of_message(self, message: Message) -> Message:
        """Every text of the message's content, and of its other values those with control tokens."""
        others = {key: self._guarded(value) for key, value in message.items() if key not in ("content", "role")}
        content = message.get("content")
        if isinstance(content, str):
            others["content"] = self._sentinel(content, required=True)
        elif content is not None:
            others["content"] = [self._of_part(part) for part in content]
        return {"role": message["role"], **others}

    def _of_part(self, part: Any) -> Any:
        if not isinstance(part, dict):
            return part
        others = {key: self._guarded(value) for key, value in part.items() if key != "text"}
        return {**others, "text": self._sentinel(part["text"], required=True)} if "text" in part else others

    def _guarded(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._sentinel(value) if self._harmful.search(value) else value
        if isinstance(value, dict):
            return {key: self._guarded(item) for key, item in value.items()}
        return [self._guarded(item) for item in value] if isinstance(value, (list, tuple)) else value

    def _sentinel(self, text: str, *, required: bool = False) -> str:
        number = len(self.texts)
        self.texts.append(text)
        if required:
            self.required.add(number)
        return f"\ue5a0{number}\ue5a1"


def encode_segments(
    segments: Iterable[Segment], tokenizer: Tokenizer, audio_tokens: Sequence[int]
) -> tuple[list[int], list[bool]]:
    """Ids of `segments` with `audio_tokens[i]` positions for clip i, and for each id whether it is trained on.

    Only the template's own control tokens become control tokens; a control token in a user's text is encoded as text.
    Where texts have none, the ids are those of the rendered prompt: the plain segments between two control tokens are
    encoded as one string, because a BPE token may span two segments ("\\n" + "\\nHi" is one token and a word).
    Raises PromptError when the number of clips differs, a clip has no tokens, or the tokenizer lacks a control token.
    """
    segments = list(segments)
    counts = _slot_counts(segments, audio_tokens)
    ids: list[int] = []
    trained: list[bool] = []
    run: list[Segment] = []
    for segment in segments:
        if not segment.control:
            run.append(segment)
            continue
        _encode_run(run, tokenizer, ids, trained)
        run = []
        times = 1 if segment.slot is None else next(counts)
        ids += [_control_id(tokenizer, segment.text)] * times
        trained += [segment.trained] * times
    _encode_run(run, tokenizer, ids, trained)
    return ids, trained


def _slot_counts(segments: Sequence[Segment], audio_tokens: Sequence[int]) -> Iterator[int]:
    slots = sum(segment.slot is not None for segment in segments)
    if slots != len(audio_tokens):
        raise PromptError(
            f"The conversation has {slots} clip(s) and {len(audio_tokens)} length(s) were given; expected one for each."
        )
    if min(audio_tokens, default=1) < 1:
        raise PromptError(f"A clip has {min(audio_tokens)} audio tokens and would not be heard; expected at least 1.")
    return iter(audio_tokens)


def _control_id(tokenizer: Tokenizer, token: str) -> int:
    token_id = tokenizer.convert_tokens_to_ids(token)
    if token_id is None or tokenizer.convert_ids_to_tokens(token_id) != token:
        raise PromptError(
            f"The tokenizer has no {token}, so it cannot encode this template; load a Qwen2-Audio tokenizer, "
            "with its tokenizer_config.json."
        )
    return int(token_id)


def _encode_run(run: Sequence[Segment], tokenizer: Tokenizer, ids: list[int], trained: list[bool]) -> None:
    new_ids, starts = tokenizer.encode_plain("".join(segment.text for segment in run))
    ends: list[int] = []  # the end of each segment in the joined text
    for segment in run:
        ends.append((ends[-1] if ends else 0) + len(segment.text))
    ids += new_ids
    trained += [run[bisect_right(ends, start)].trained for start in starts]
