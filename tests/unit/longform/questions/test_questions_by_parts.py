"""A question to each part of a long clip, and one answer from theirs; the model knows its windows by heart."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.knowing_reader import RATE, KnowingReader, codes_of, said, sound_of
from qwen2_audio.engine.request import completions_of
from qwen2_audio.errors import AudioError, BusyError, ContextLengthError, PromptError
from qwen2_audio.inputs.messages import assistant, system, user
from qwen2_audio.longform import vad
from qwen2_audio.longform.questions import notes, parts
from qwen2_audio.longform.questions import question as question_module
from qwen2_audio.longform.questions.asker import Asker
from qwen2_audio.longform.questions.recordings import Conversation, Recording
from qwen2_audio.longform.questions.submit import submit
from qwen2_audio.longform.questions.wording import clock
from qwen2_audio.longform.settings import TranscriptionSettings
from qwen2_audio.longform.transcribe import LIMITS
from qwen2_audio.types import Part, SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=40)


silero = vad.speech_detector


@pytest.fixture(autouse=True)
def _by_energy(monkeypatch):
    monkeypatch.setattr(vad, "speech_detector", lambda: None)


def ask(reader, audio, question="Which codes?", params=GREEDY, long="parts", before=()):
    _, handle = submit(reader, [*before, user(question, audio=audio)], params, long)
    return completions_of(list(handle), params.n)[0]


def windows_of(answer):
    return [part for part in answer.parts if part.level == 0]


def test_parts_are_asked_alone_and_their_answers_combined():
    reader = KnowingReader()
    answer = ask(reader, sound_of({3: 12, 40: 34, 95: 56}, 100.0))
    assert answer.text == "#12 #34 #56" and answer.finish_reason == "stop"
    assert [(part.text, part.used) for part in answer.parts] == [
        ("#12", True), ("#34", True), ("Nothing.", False), ("#56", True)
    ]  # fmt: skip
    *windows, (reduced, clips, params) = reader.asked
    for (text, (clip,), asked), part in zip(windows, answer.parts, strict=True):
        span = f"{clock(part.start)} to {clock(part.end)}"
        assert text.startswith(f"Which codes?\nThis is the part from {span} of a longer recording. Answer from this")
        assert len(clip) <= 30 * RATE and (asked.temperature, asked.max_tokens) == (0.0, 40)
    assert clips == [] and params == GREEDY
    assert reduced.startswith("Notes on a recording of 1:40.") and "] #12\n[" in reduced
    assert "Nothing" not in reduced and reduced.endswith("\n\nWhich codes?\nAnswer from these notes.")


def test_what_was_heard_and_what_it_cost_is_told():
    reader = KnowingReader()
    answer = ask(reader, sound_of({3: 12, 40: 34}, 100.0))
    (heard,) = answer.heard
    assert (heard.seconds, heard.long, heard.parts) == (100.0, "parts", 4)
    assert heard.tokens == pytest.approx(2500, abs=4)
    assert heard.notes == ("It was heard in 4 parts, each alone; the answer is made from notes on 2 of them, as text.",)
    assert answer.usage.completion_tokens == 5 * 3
    assert answer.usage.audio_tokens == heard.tokens


def test_the_only_part_that_answers_is_the_answer():
    reader = KnowingReader()
    answer = ask(reader, sound_of({40: 34}, 100.0))
    assert answer.text == "#34" and len(reader.asked) == 4
    assert answer.heard[0].notes == (
        "It was heard in 4 parts, each alone; the answer is that of the one which holds it.",
    )
    with_logprobs = ask(reader, sound_of({40: 34}, 100.0), params=SamplingParams(temperature=0, logprobs=0))
    assert with_logprobs.text == "#34" and reader.asked[-1][0].startswith("Notes on")  # whose log-probs they are


def test_where_no_part_answers_the_answer_says_so():
    answer = ask(KnowingReader(), sound_of({}, 70.0))
    assert answer.text == f"None of the {len(answer.parts)} parts of the recording holds an answer."
    assert not any(part.used for part in answer.parts)
    silent = KnowingReader()
    answer = ask(silent, np.zeros(70 * RATE, np.float32))
    assert answer.heard[0].notes[-1] == "3 of the parts are digital silence, which is not asked about."
    assert silent.asked == [] and answer.text.startswith("None of the 3 parts") and answer.usage.prompt_tokens == 0


def test_where_a_form_is_wanted_the_model_says_that_there_is_no_answer():
    reader = KnowingReader()
    answer = ask(reader, sound_of({}, 70.0), params=SamplingParams(temperature=0, logprobs=0))
    assert answer.text == "Nothing." and reader.asked[-1][0].startswith("None of the 3 parts of the recording holds")


def test_a_checkpoint_that_does_not_combine_notes_lists_them():
    reader = KnowingReader(settings=TranscriptionSettings(combine=False, part="", no_answer=("Nothing at all",)))
    answer = ask(reader, sound_of({3: 12, 95: 56}, 100.0))
    assert answer.text == "[0:00-0:30] #12\n[1:30-1:40] #56" and len(reader.asked) == 4
    assert all(text == "Which codes?" for text, _, _ in reader.asked)
    assert "lists what 2 of them say, not combined" in answer.heard[0].notes[0]


def wordy(text, clips, params):
    """A window says its code in many words; notes are combined to their codes."""
    if not clips:
        return said(codes_of(text))
    found = {int(code) for code in np.unique(np.round(100 * clips[0])) if code > 5}
    return said(found) + " and so on" * 20


def test_notes_that_exceed_the_budget_are_combined_in_levels(monkeypatch):
    monkeypatch.setattr(notes, "BUDGET", 150)
    reader, codes = KnowingReader(answer=wordy), {30.0 * n + 5: 10 + n for n in range(40)}
    answer = ask(reader, sound_of(codes, 1200.0))
    assert codes_of(answer.text) == set(codes.values())
    levels = [part.level for part in answer.parts]
    assert max(levels) == 2 and levels == sorted(levels)
    for level in range(3):
        spans = [(part.start, part.end) for part in answer.parts if part.level == level and part.used]
        assert spans == sorted(spans)
        said_there = [codes_of(part.text) for part in answer.parts if part.level == level]
        assert set().union(*said_there) == set(codes.values())
    assert answer.heard[0].notes[-1].endswith("as text, in 3 levels.")
    for text, clips, params in reader.asked:
        if not clips:
            assert sum(reader.count_tokens(line) for line in text.splitlines() if line.startswith("[")) <= 150
            assert params.max_tokens == 37 or params == GREEDY


def test_notes_that_cannot_be_combined_are_refused(monkeypatch):
    monkeypatch.setattr(notes, "BUDGET", 100)
    reader = KnowingReader(answer=wordy)
    with pytest.raises(ContextLengthError, match=r"3 notes on the recording do not fit into 100 tokens, not even two"):
        ask(reader, sound_of({5: 12, 35: 34, 75: 56}, 90.0))
    monkeypatch.setattr(notes, "BUDGET", 50)
    with pytest.raises(ContextLengthError, match=r"What is said of 0:00 to 0:\d\d has 7\d tokens, and 50 are left"):
        ask(reader, sound_of({5: 12, 35: 34, 75: 56}, 90.0))


def test_a_conversation_without_room_for_notes_is_refused_before_anything_is_heard():
    reader = KnowingReader(context=400)
    with pytest.raises(ContextLengthError, match=r"answer of 40 tokens leave \d+ of the context's 400 tokens"):
        ask(reader, sound_of({5: 12}, 60.0))
    assert reader.asked == []


spans = st.lists(st.integers(0, 160), unique=True, max_size=12)


@settings(max_examples=15)
@given(starts=spans, seconds=st.floats(31.0, 170.0), budget=st.sampled_from([60, 200, 6000]), merge=st.booleans())
def test_every_second_is_in_one_part_in_order_within_the_budget(starts, seconds, budget, merge):
    codes = {float(start): 10 + number for number, start in enumerate(starts) if start + 1 < seconds}
    reader = KnowingReader(settings=TranscriptionSettings(merge=merge), context=1100)
    before, notes.BUDGET = notes.BUDGET, budget
    try:
        answer = ask(reader, sound_of(codes, seconds))
    finally:
        notes.BUDGET = before
    position = 0.0
    for part in windows_of(answer):
        assert part.start == pytest.approx(position, abs=1e-6) and part.end > part.start
        position = part.end
    assert position == pytest.approx(round(seconds * RATE) / RATE, abs=0.1001)  # 0.1 s over a window is dropped
    assert answer.heard[0].seconds == pytest.approx(position)
    assert codes_of(answer.text) >= set(codes.values()) if codes else "None of the" in answer.text
    assert max(reader.prompts) <= 1100


@pytest.mark.parametrize("merge", [True, False])
def test_what_is_no_speech_is_heard_too(monkeypatch, merge):
    monkeypatch.setattr(vad, "speech_detector", silero)
    answer = ask(KnowingReader(settings=TranscriptionSettings(merge=merge)), sound_of({3: 12, 50: 34}, 70.0))
    assert answer.text == "#12 #34" and answer.heard[0].seconds == 70.0


def test_answers_do_not_depend_on_how_many_parts_are_asked_at_once(monkeypatch):
    audio = sound_of({10.0 * n: 10 + n for n in range(30)}, 300.0)
    whole = ask(KnowingReader(), audio)
    for pending, room in ((1, 1), (3, 2), (32, 10_000)):
        monkeypatch.setattr(parts, "MAX_PENDING", pending)
        reader = KnowingReader(delay=lambda number: 0.004 * (number * 7 % 5), room=room)  # out of order
        again = ask(reader, audio)
        assert (again.text, again.parts, again.heard) == (whole.text, whole.parts, whole.heard)
        assert reader.most_open <= min(pending, room)


def test_reading_stays_near_the_answers(monkeypatch):
    """An hour: never more than the windows that are asked, and what is being cut, is read ahead."""
    read, answered, ahead = [0.0], [0.0], [0.0]

    class Endless:
        seconds, notes = 3600.0, ()

        def __init__(self, *_, **__):
            pass

        def blocks(self):
            for _ in range(360):
                read[0] += 10.0
                ahead[0] = max(ahead[0], read[0] - answered[0])
                yield [np.full(10 * RATE, 0.2, np.float32)]

    monkeypatch.setattr(parts, "SoundStream", Endless)
    reader = KnowingReader(answer=lambda text, clips, params: "#20", delay=lambda number: 0.0 if number else 0.5)
    recording = Recording(1, 0, 0, b"", "Clip 1", 3600.0)
    content = [{"type": "audio", "audio": b""}, {"type": "text", "text": "What?"}]
    conversation = Conversation([{"role": "user", "content": content}], {}, [recording])
    listener = parts.Listener(recording, reader.transcription, LIMITS, plain=False)
    for part in parts.answers(Asker(reader), conversation, listener, GREEDY):
        answered[0] = part.end
    assert answered[0] == 3600.0 and ahead[0] <= parts.MAX_PENDING * 30 + 60


def test_parts_come_before_the_deltas_of_the_answer():
    _, handle = submit(KnowingReader(), [user("Which?", audio=sound_of({3: 12, 40: 34}, 70.0))], GREEDY, "parts")
    chunks = list(handle)
    kinds = ["part" if chunk.part else "end" if chunk.finish_reason else "text" for chunk in chunks]
    assert kinds == ["part"] * 3 + ["text"] * 2 + ["end"]
    assert "".join(chunk.text for chunk in chunks) == "#12 #34"


def test_several_answers_share_the_parts():
    params = SamplingParams(n=2, max_tokens=40, temperature=1.0, seed=1)
    _, handle = submit(KnowingReader(), [user("Which?", audio=sound_of({3: 12, 40: 34}, 70.0))], params, "parts")
    one, other = completions_of(list(handle), 2)
    assert one.text == other.text == "#12 #34" and one.parts == other.parts and len(one.parts) == 3
    assert (one.usage.completion_tokens, other.usage.completion_tokens) == (4 * 3, 3)


def test_short_clips_and_earlier_turns_are_heard_with_every_part():
    reader, short = KnowingReader(), sound_of({0.1: 77}, 1.0)
    before = [system("Be brief."), user("What is this?", audio=short), assistant("#77")]
    answer = ask(reader, [short, sound_of({3: 12, 40: 34}, 70.0)], before=before)
    text, clips, _ = reader.asked[0]
    assert text.startswith("Be brief.What is this?#77Which codes?") and [len(clip) for clip in clips[:2]] == [RATE] * 2
    text, clips, _ = reader.asked[-1]
    assert "Notes on a recording" in text and [len(clip) for clip in clips] == [RATE] * 2
    assert [(heard.seconds, heard.long) for heard in answer.heard] == [(1.0, ""), (1.0, ""), (70.0, "parts")]


LONG = sound_of({3: 12}, 31.0)


@pytest.mark.parametrize(
    ("messages", "error", "sentence"),
    [
        ([user(audio=LONG)], PromptError, r"Clip 1 lasts longer .* and comes without a question; ask one"),
        ([user("What?", audio=[LONG, LONG])], AudioError, r"Clip 1 and Clip 2 both last longer .* ask about each by"),
        (
            [user("What?", audio=LONG), assistant("#12"), user("And?")],
            AudioError,
            r"Clip 1 lasts longer .* stands in message 1, and .* give it there again, or ask with long='transcript'",
        ),
    ],
    ids=["no question", "two", "earlier"],
)
def test_what_is_not_answered_by_parts_is_said_in_a_sentence(messages, error, sentence):
    reader = KnowingReader()
    with pytest.raises(error, match=sentence):
        submit(reader, messages, GREEDY, "parts")
    assert reader.asked == []


def test_a_part_that_fails_ends_the_question(monkeypatch):
    def fails(text, clips, params):
        raise BusyError("no memory")

    with pytest.raises(BusyError, match="no memory"):
        ask(KnowingReader(answer=fails), sound_of({3: 12}, 70.0))


def test_a_question_can_be_cancelled():
    reader = KnowingReader(delay=lambda number: 0.0 if number == 0 else 30.0)
    _, handle = submit(reader, [user("Which?", audio=sound_of({3: 12}, 170.0))], GREEDY, "parts")
    chunks = iter(handle)
    assert next(chunks).part is not None
    handle.cancel()
    *_, last = chunks
    assert last.finish_reason == "cancelled"
    for thread in threading.enumerate():
        if thread.name.startswith(("qwen2-audio-long", "knowing")):
            thread.join(5)
    assert reader.open == 0


def test_groups_hold_as_many_notes_as_fit():
    reader = KnowingReader()
    found = [Part(30.0 * n, 30.0 * n + 30, f"#{10 + n}") for n in range(7)]
    groups = notes.grouped(reader, found, 3 * reader.count_tokens("[0:00-0:30] #10"))
    assert [len(group) for group in groups] == [3, 3, 1] and [part for group in groups for part in group] == found


def test_a_question_that_is_cancelled_while_others_are_worked_on_gives_up_its_thread(monkeypatch):
    monkeypatch.setattr(question_module, "_slots", threading.BoundedSemaphore(1))
    with question_module._slots:
        before = set(threading.enumerate())
        _, handle = submit(KnowingReader(), [user("Which codes?", audio=sound_of({3: 12}, 70.0))], GREEDY, "parts")
        (waiting,) = set(threading.enumerate()) - before
        handle.cancel()
        waiting.join(5)
        assert not waiting.is_alive()
        assert [chunk.finish_reason for chunk in handle] == ["cancelled"]
    assert ask(KnowingReader(), sound_of({3: 12}, 70.0)).text == "#12"
