"""AudioChat: a loaded checkpoint that answers a conversation, streams an answer, or answers a batch."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch

from ..engine.engine import EngineSettings
from ..engine.request import RequestHandle
from ..errors import ConfigError, PromptError
from ..inputs.processor import Qwen2AudioProcessor
from ..inputs.prompt import Prompt
from ..longform.asking import Task
from ..longform.settings import TranscriptionSettings
from ..longform.transcribe import Listening
from ..longform.transcript import Transcript
from ..longform.wording import language_of as to_name
from ..pretrained import Qwen2AudioForConditionalGeneration
from ..types import Chunk, Completion, Ending, Message, Pooling, PoolingParams, SamplingParams, Source
from . import alignment, batch, decisions, embedding, transcription
from .service import Service, service_of

DEFAULT_PARAMS = SamplingParams()


class AudioChat:
    """A loaded checkpoint that answers conversations. `load()` makes it.

    Several threads may call it; requests at the same time are computed together. An answer does not depend on other
    requests. Encoded clips and the KV cache of prompts are kept for later calls, unless
    `settings.enable_prefix_caching` is off.

    Attributes: `model`, `processor`, `name` (folder or hub name), `about` (one line on what the checkpoint is for),
    `notes` (the choices made for this machine, with reasons), `settings` of the engine, `draft` (the draft model of
    speculative decoding, or None), `transcription` (how the checkpoint transcribes, by its transcription.json).
    """

    def __init__(
        self,
        model: Qwen2AudioForConditionalGeneration,
        processor: Qwen2AudioProcessor,
        settings: EngineSettings | None = None,
        *,
        name: str = "",
        about: str = "",
        notes: Sequence[str] = (),
        draft: Qwen2AudioForConditionalGeneration | None = None,
        transcription: TranscriptionSettings | None = None,
    ) -> None:
        self.model = model
        self.processor = processor
        self.settings = settings or EngineSettings()
        self.name = name
        self.about = about
        self.notes = tuple(notes)
        self.draft = draft
        self.transcription = transcription or TranscriptionSettings()
        self._lock = Lock()
        self._service: Service | None = None
        self._whole: AudioChat | None = None

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    def service(self) -> Service:
        """The engine's service, which starts with the first call and is closed when this object is deleted."""
        with self._lock:
            if self._service is None:
                self._service = service_of(self, self.name)
                weakref.finalize(self, self._service.close)
            return self._service

    def adapters(self) -> list[str]:
        """Names of the adapters that may be asked for: those of `lora_folder`, as it is now, and of `lora_modules`."""
        return self.service().adapters()

    def with_adapter(self, name: str) -> AudioChat:
        """This checkpoint with a LoRA adapter, for all that the result is asked: transcribe, embed, decide and so on.

        Both share weights and engine, and may be used at a time. Raises ConfigError, WeightsError as `chat`, and
        BusyError where requests use as many other adapters as may be in memory.
        """
        view = copy.copy(self)
        view._service = self.service().with_adapter(name)
        view._whole = self  # whose end closes the engine
        return view

    def chat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        long: str = "refuse",
        continue_final_message: bool = False,
        adapter: str | None = None,
    ) -> Completion:
        """Answer a conversation.

        Args:
            messages: results of `user()`, `system()` and `assistant()`, or dicts `{"role", "content"}` whose content is
                text or a list of parts `{"type": "text", "text"}` and `{"type": "audio", "audio": source}`.
            params: None, or a field that is None, takes the checkpoint's generation_config; without a limit there, an
                answer has at most 256 new tokens.
            long: what becomes of a clip of more than 30 s (docs/long-audio.md). "refuse"; "parts": each window is
                asked alone, then their answers, as notes; "native": up to 4 windows in one prompt, "native:9" up to 9;
                "transcript": it is transcribed, once, and asked about as text. `Completion.parts` has each part's
                answer, and `Completion.heard` says what was heard and what the answer is made of.
            continue_final_message: the answer goes on with the text of the last message, a begun answer.
            adapter: the name of a LoRA adapter that `load(lora_folder=)` or `load(lora_modules=)` allows, for this
                answer; None: the checkpoint as it is. `with_adapter` has the other verbs with one.

        Raises:
            PromptError: malformed messages.
            AudioError: a clip that cannot be read, is under 21 ms, or is longer than 30 s and refused, or is not
                answered in the way that `long` says.
            ContextLengthError: prompt and answer exceed the context.
            CapacityError: the request needs more memory than the engine has.
            ConfigError: params that cannot work, or an adapter that is not allowed.
            WeightsError: an adapter whose files are damaged, or do not fit.
        """
        ending: Ending = "continued" if continue_final_message else "answer"
        handle = self._submit(messages, _single(params, "chat"), long, ending, adapter)
        try:
            (answer,) = handle.completions()
        finally:
            handle.cancel()  # stops the request after an interrupt; without effect on a finished one
        return answer

    def stream(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        long: str = "refuse",
        continue_final_message: bool = False,
        adapter: str | None = None,
    ) -> Iterator[Chunk]:
        """Answer a conversation as `chat` does, as an iterator over deltas of the text.

        The joined texts are the text of `chat`; the last chunk has the finish reason and the usage. Messages are
        checked and clips are read before this returns. Closing the iterator, or leaving the loop over it, stops
        generation after the current token. With `long` other than "refuse", parts of a long clip come first, as
        chunks with a `part` and without text. Raises as `chat`.
        """
        ending: Ending = "continued" if continue_final_message else "answer"
        return _deltas(self._submit(messages, _single(params, "stream"), long, ending, adapter))

    def batch(
        self,
        conversations: Sequence[Sequence[Message]],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        long: str = "refuse",
        adapters: str | Sequence[str | None] | None = None,
    ) -> list[Completion]:
        """Answer any number of conversations together; each answer is that of `chat`.

        Args:
            conversations: a list of conversations.
            params: SamplingParams for all of them, or a list with one for each.
            long: as of `chat`, for all of them.
            adapters: an adapter's name for all of them, or a list with a name or None for each, as of `chat`.

        Raises:
            Qwen2AudioError: as `chat`; the message begins with the conversation's number, from 1. All other requests
                of the batch are cancelled.
            BusyError: other callers filled the engine's queue for 60 s.
        """
        if isinstance(params, str) or not isinstance(params, Sequence):
            params = [_single(params, "batch")] * len(conversations)
        all_params = [_single(item, "batch") for item in params]
        if len(all_params) != len(conversations):
            raise ConfigError(
                f"batch() got {len(all_params)} params for {len(conversations)} conversations; expected one for each."
            )
        names = [adapters] * len(conversations) if adapters is None or isinstance(adapters, str) else list(adapters)
        if len(names) != len(conversations):
            raise ConfigError(
                f"batch() got {len(names)} adapters for {len(conversations)} conversations; expected one for each."
            )
        if any(isinstance(conversation, dict) for conversation in conversations):
            raise PromptError(
                "batch() got one conversation; expected a list of conversations. Use chat() for one, or batch([...])."
            )
        ahead = max(1, (self.settings.max_waiting + self.settings.max_num_seqs) // 2)
        return batch.run(self.service(), list(zip(conversations, all_params, names, strict=True)), long, ahead)

    def transcribe(
        self,
        audio: Any,
        *,
        language: str | None = None,
        prompt: str | None = None,
        temperature: float = 0.0,
        everything: bool = False,
        split_channels: bool = False,
        stream: bool = False,
        word_timestamps: bool = False,
        speakers: str | Path | None = None,
    ) -> Any:
        """Write down what is said in a sound of any length, or in several: a Transcript, or a list of them.

        Args:
            audio: what `user()` takes as a clip; a list of such is several sounds, all computed together.
            language: that is spoken, as "en" or "english"; None: not known.
            prompt: what it is about, names for example; only chat checkpoints take one.
            temperature: 0 is greedy. Answers that loop are asked again, in halves and then at 0.2 and 0.4.
            everything: also hear what is no speech; else windows hold speech, and `Transcript.skipped` the rest.
            split_channels: hear each channel by itself, one speaker a channel, as calls are recorded.
            stream: return an iterator instead: over the Segments of one sound, in order of time, or over the
                Transcripts of several. Closing it stops the work.
            word_timestamps: give each word its time, by the checkpoint's aligner; without them, words have none, and
                sentences are found by pauses.
            speakers: a file in RTTM, from any diariser, whose names segments and words get; there is none here.

        Raises:
            AudioError: a sound that cannot be read.
            ConfigError: an unknown language, a prompt that the checkpoint does not take, times of words without an
                aligner, or no RTTM. All are raised before anything is computed.
        """
        task = Task(language, None, prompt, temperature)
        listening = Listening(everything=everything, split_channels=split_channels)
        service, words = self.service(), word_timestamps
        return transcription.run(service, audio, task, listening, stream=stream, words=words, speakers=speakers)

    def translate(
        self,
        audio: Any,
        *,
        to: str = "en",
        language: str | None = None,
        prompt: str | None = None,
        everything: bool = False,
        split_channels: bool = False,
        stream: bool = False,
        speakers: str | Path | None = None,
    ) -> Any:
        """Write down what is said in another language, `to`; all else as `transcribe`. Its words have no times, because
        they are not those in the sound."""
        if to_name(to) is None:
            raise ConfigError(f"to is {to!r}; expected the language to translate into, such as 'en'.")
        task = Task(language, to, prompt)
        listening = Listening(everything=everything, split_channels=split_channels)
        return transcription.run(self.service(), audio, task, listening, stream=stream, speakers=speakers)

    def align(
        self, audio: Any, text: str, *, everything: bool = False, speakers: str | Path | None = None
    ) -> Transcript:
        """Times of a text that is known: a Transcript with a segment for each line and sentence, and times of words.

        Args:
            audio: what `user()` takes as a clip, of any length.
            text: what is said in it, in any script. Words that the sound does not hold get no times, and a note counts
                them.
            everything: also look where nobody seems to speak, as in singing.
            speakers: as `transcribe`.

        Raises:
            AudioError: a sound that cannot be read.
            ConfigError: the checkpoint has no aligner (`qwen2-audio train aligner` makes one), a text without words, or
                one that is too long for the sound.
        """
        return alignment.run(self.service(), audio, text, Listening(everything=everything), speakers)

    def embed(
        self,
        inputs: Sequence[Any],
        *,
        source: Source = "language_model",
        layer: int = -1,
        pooling: Pooling | None = None,
        normalize: bool = True,
    ) -> np.ndarray | list[np.ndarray]:
        """Embed clips, texts and conversations: float32 [N, D], each row as if it were alone.

        Args:
            inputs: a list of clips in any form that `user()` takes; of `user(...)` messages, for text, or for text
                with clips; or of lists of messages, which take the chat template.
            source: "language_model": the hidden states behind the final norm, of `<|audio_bos|>`, clip,
                `<|audio_eos|>` and text, as MTEB takes them; "encoder" or "projector": of the clips alone, far cheaper.
            layer: of the source's hidden states, counted as transformers counts them: 0 enters the first layer, -1 is
                the source's output. The encoder's has 25 states a second, its layers have 50.
            pooling: "last" position (the language model's default), "mean" (of the others), or "none": then a list of
                N arrays [T, D].
            normalize: to length 1, so that a product of two rows is their cosine.

        Raises:
            Qwen2AudioError: as `chat`; the message begins with the input's number, from 1.
        """
        return embedding.run(self.service(), inputs, PoolingParams(source, layer, pooling, normalize))

    def decide(self, audio: Any, questions: Any) -> Any:
        """Answer questions whose answers are given: a Decision, or for a list of questions a list of them.

        Args:
            audio: a clip or a list of clips, as `user()` takes them, or the messages of a conversation.
            questions: `{"question": str, "choices": [...]}`, with choices also as a dict of descriptions;
                `{"question", "levels": [...]}` for a scale, lowest first; `{"question"}` for yes or no; or a list of
                such questions, which share the clip's encoding and its part of the prompt. `"labels": "words"` scores
                the choices' own words instead of letters.

        Raises:
            PromptError: a malformed question.
            AudioError, ContextLengthError, CapacityError: as `chat`.
        """
        return decisions.run(self.service(), audio, questions)

    def _submit(
        self, messages: Sequence[Message], params: SamplingParams, long: str, ending: Ending, adapter: str | None
    ) -> RequestHandle:
        service = self.service() if adapter is None else self.service().with_adapter(adapter)
        if long != "refuse":
            messages, handle = batch.submit_long(service, messages, params, long)
            if handle is not None:
                return handle
        prompt: Prompt = service.prompt(messages, ending=ending)
        service.check(prompt, params)
        return service.submit_prompt(prompt, params)


def _single(params: object, name: str) -> SamplingParams:
    params = DEFAULT_PARAMS if params is None else params
    if not isinstance(params, SamplingParams):
        raise ConfigError(
            f"{name}() got {params!r} as params; expected SamplingParams, as in SamplingParams(max_tokens=64)."
        )
    if params.n != 1:
        raise ConfigError(f"n is {params.n}, and {name}() gives one answer; ask again with another seed.")
    return params


def _deltas(handle: RequestHandle) -> Iterator[Chunk]:
    try:
        for chunk in handle:
            if chunk.error is not None:
                raise chunk.error
            yield chunk
    finally:
        handle.cancel()
        handle.wait()  # for the current step, so that nothing is computed after the iterator is closed
