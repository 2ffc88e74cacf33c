"""The values of `long`: native windows in one prompt, transcripts as text, and where no clip is long."""

import io

import numpy as np
import pytest

from kit.clip_files import encoded, wav_bytes
from kit.knowing_reader import RATE, KnowingReader, codes_of, sound_of
from qwen2_audio.audio.io import SoundStream
from qwen2_audio.engine.request import completions_of
from qwen2_audio.errors import AudioError, ConfigError, ContextLengthError
from qwen2_audio.inputs.messages import assistant, user
from qwen2_audio.longform import transcribe as transcribing
from qwen2_audio.longform import vad
from qwen2_audio.longform.questions import parts, recordings, transcript_store
from qwen2_audio.longform.questions.policy import Policy, parse_policy
from qwen2_audio.longform.questions.submit import submit
from qwen2_audio.longform.questions.transcript_store import DiskStore, MemoryStore, Spoken, content_key, use_store
from qwen2_audio.longform.settings import TranscriptionSettings
from qwen2_audio.types import Part, SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=40)


@pytest.fixture(autouse=True)
def _by_energy(monkeypatch):
    monkeypatch.setattr(vad, "speech_detector", lambda: None)
    monkeypatch.setattr(transcribing, "speech_detector", lambda: None)


def ask(reader, messages, long):
    _, handle = submit(reader, messages, GREEDY, long)
    return completions_of(list(handle), 1)[0]


def test_values_of_long():
    assert parse_policy("parts") == Policy("parts") and parse_policy("native") == Policy("native", 4)
    assert parse_policy("native:9") == Policy("native", 9) and Policy("native", 9).value == "native:9"
    for wrong in ("native:10", "native:0", "native:", "parts:2", "", "Parts", 7):
        with pytest.raises(ConfigError, match=r"^long is .*; expected refuse, parts, native, transcript, or native:1"):
            parse_policy(wrong)
    with pytest.raises(ConfigError, match="Did you mean 'transcript'"):
        parse_policy("transcripts")


@pytest.mark.parametrize(
    "source", [sound_of({}, 30.05), wav_bytes(1.0), io.BytesIO(wav_bytes(1.0))], ids=["30.05", "bytes", "file"]
)
def test_without_a_long_clip_the_model_is_asked_as_usual(source):
    reader = KnowingReader()
    messages, handle = submit(reader, [user("What?", audio=source)], GREEDY, "parts")
    assert handle is None and reader.asked == [] and messages[0]["content"][0]["audio"] is source
    for plain in ([user("Hello")], [{"role": "user"}], "Hello", [user("What?", audio=sound_of({}, 31.0))]):
        assert submit(reader, plain, GREEDY, "refuse") == (plain, None)
    assert submit(reader, [{"role": "user"}], GREEDY, "parts")[1] is None


def test_a_clip_that_cannot_be_read_is_named_as_ever():
    with pytest.raises(AudioError, match=r"No such file: 'nope\.wav'") as refused:
        submit(KnowingReader(), [user("What?", audio=[sound_of({}, 31.0), "nope.wav"])], GREEDY, "parts")
    assert refused.value.clip == 2


class Pipe:
    """A file object that cannot seek."""

    def __init__(self, data):
        self.read = io.BytesIO(data).read

    def seekable(self):
        return False


def test_a_pipe_is_read_once():
    answer = ask(KnowingReader(), [user("What?", audio=Pipe(wav_bytes(65.0)))], "parts")
    assert answer.heard[0].seconds == 65.0
    messages, handle = submit(KnowingReader(), [user("What?", audio=Pipe(data := wav_bytes(1.0)))], GREEDY, "parts")
    assert handle is None and messages[0]["content"][0]["audio"] == data


@pytest.mark.parametrize("seconds", [1.0, 65.0])
def test_a_link_is_fetched_once(monkeypatch, seconds):
    fetched = []
    monkeypatch.setattr(recordings, "fetch", lambda url, *_: fetched.append(url) or io.BytesIO(wav_bytes(seconds)))
    messages, handle = submit(KnowingReader(), [user("What?", audio="https://a.org/b.wav")], GREEDY, "parts")
    assert fetched == ["https://a.org/b.wav"]
    if handle is None:
        assert messages[0]["content"][0]["audio"] == wav_bytes(1.0)
    else:
        assert completions_of(list(handle), 1)[0].heard[0].seconds == 65.0


def test_native_windows_are_said_to_be_consecutive():
    reader, short = KnowingReader(), sound_of({0.1: 77}, 1.0)
    answer = ask(reader, [user("Which codes?", audio=[short, sound_of({3: 12, 40: 34}, 70.0)])], "native")
    ((text, clips, params),) = reader.asked
    assert text == "Audio 2 to Audio 4 are consecutive parts of one recording of 1:10.\nWhich codes?"
    assert params == GREEDY and sum(map(len, clips[1:])) == 70 * RATE
    assert answer.text == "#12 #34 #77" and answer.parts == ()
    assert [(heard.long, heard.parts) for heard in answer.heard] == [("", 0), ("native", 3)]
    assert answer.heard[1].tokens == pytest.approx(1750, abs=3) and answer.heard[0].tokens == 25


def test_native_takes_recordings_of_earlier_turns_too():
    turns = [
        user("What?", audio=sound_of({3: 12}, 31.0)),
        assistant("#12"),
        user("And?", audio=sound_of({3: 34}, 31.0)),
    ]
    reader = KnowingReader()
    assert ask(reader, turns, "native").text == "#12 #34"
    assert "Audio 1 to Audio 2 are" in reader.asked[0][0] and "Audio 3 to Audio 4 are" in reader.asked[0][0]


def test_native_has_a_limit():
    reader, audio = KnowingReader(), sound_of({}, 200.0)
    with pytest.raises(
        AudioError, match=r"^Clip 1 lasts 3:20, which is more than the 4 windows .* native:9 takes 9, parts"
    ):
        ask(reader, [user("What?", audio=audio)], "native")
    assert reader.asked == [] and ask(reader, [user("What?", audio=audio)], "native:9").heard[0].parts <= 9
    with pytest.raises(
        AudioError, match=r"the 9 windows of at most 30 s that long=native:9 puts into one prompt; parts"
    ):
        ask(reader, [user("What?", audio=sound_of({}, 280.0))], "native:9")


def test_a_transcript_is_made_once_and_asked_about_as_text():
    reader, audio = KnowingReader(), sound_of({3: 12, 40: 34}, 70.0)
    answer = ask(reader, [user("Which codes?", audio=audio)], "transcript")
    assert answer.text == "#12 #34"
    asked = len(reader.asked)
    text, clips, params = reader.asked[-1]
    assert text.startswith("What is said in a recording of 1:10:\n[0:00-0:") and text.endswith("\n\nWhich codes?")
    assert clips == [] and params == GREEDY
    (heard,) = answer.heard
    assert (heard.long, heard.seconds, heard.tokens, heard.parts) == ("transcript", 70.0, 0, 3)
    assert heard.notes[-1] == "It was transcribed; the answer is made from its transcript, as text."
    again = ask(reader, [user("Are there any?", audio=audio)], "transcript")
    assert again.text == answer.text and again.parts == answer.parts and again.heard == answer.heard
    assert len(reader.asked) == asked + 1


def test_later_turns_may_have_transcripts_too():
    reader = KnowingReader()
    turns = [
        user("What?", audio=sound_of({3: 12}, 31.0)),
        assistant("#12"),
        user("And?", audio=sound_of({3: 34}, 31.0)),
    ]
    assert ask(reader, turns, "transcript").text == "#12 #34"
    assert reader.asked[-1][0].count("What is said in a recording of 0:31:") == 2


def test_a_transcript_that_is_too_long_is_read_in_blocks_of_ten_minutes():
    reader = KnowingReader(context=1100)
    audio = sound_of({}, 31.0)  # what is said in it is known already
    use_store(reader, store := MemoryStore())
    said = tuple(Part(30.0 * n, 30.0 * n + 30, f"#{10 + n}" + " word" * 30) for n in range(60))
    store.put(content_key(audio), Spoken(1800.0, 1800.0, said, (), 60))
    answer = ask(reader, [user("Which codes?", audio=audio)], "transcript")
    assert codes_of(answer.text) == set(range(10, 70))
    blocks = [part for part in answer.parts if part.level == 1]
    assert max(part.end - part.start for part in blocks) <= 600 and blocks[0].start == 0 and blocks[-1].end == 1800
    assert max(reader.prompts) <= 1100
    assert (
        reader.asked[0][0].startswith("What is said from 0:00 to ")
        and "of a recording of 30:00:\n" in reader.asked[0][0]
    )
    assert f"what {len(blocks)} of {len(blocks)} blocks of its text say" in answer.heard[0].notes[-1]


def test_two_transcripts_that_are_too_long_are_refused():
    reader = KnowingReader(context=500)
    use_store(reader, store := MemoryStore())
    turns = [user("What?", audio=[sound_of({3: 12}, 31.0), sound_of({3: 34}, 32.0)])]
    for part in turns[0]["content"][:2]:
        store.put(content_key(part["audio"]), Spoken(31.0, 31.0, (Part(0, 31, "word " * 200),), (), 1))
    with pytest.raises(AudioError, match=r"What is said in Clip 1 and Clip 2 has 4\d\d tokens, and a prompt has room"):
        ask(reader, turns, "transcript")
    audio = sound_of({3: 56}, 31.0)
    store.put(content_key(audio), Spoken(31.0, 31.0, (Part(0, 31, "word " * 400),), (), 1))
    with pytest.raises(ContextLengthError, match=r"What is said of 0:00 to 0:31 has 4\d\d tokens, and 2\d\d are left"):
        ask(reader, [user("?", audio=audio)], "transcript")


def test_a_transcript_without_words_is_no_prompt():
    reader = KnowingReader()
    answer = ask(reader, [user("What?", audio=np.zeros(31 * RATE, np.float32))], "transcript")
    assert answer.text.startswith("Nobody speaks in the recording") and reader.asked == []


def test_a_checkpoint_that_does_not_answer_from_text_gives_the_transcript():
    reader = KnowingReader(settings=TranscriptionSettings(combine=False))
    answer = ask(reader, [user("What?", audio=sound_of({3: 12, 40: 34}, 59.0))], "transcript")
    assert answer.text == "[0:00-0:30] #12\n[0:30-0:59] #34" and len(reader.asked) == 2
    assert answer.heard[0].notes[-1].endswith("as this checkpoint does not answer from text.")


def test_what_of_a_file_was_lost_is_told():
    whole = encoded("flac", "flac", 80.0)
    answer = ask(KnowingReader(), [user("What?", audio=whole[: len(whole) * 3 // 4])], "parts")
    assert 40 < answer.heard[0].seconds < 80 and "damaged" in answer.heard[0].notes[0]


@pytest.mark.parametrize("long", ["parts", "native", "transcript"])
def test_a_recording_that_cannot_be_read_on_is_named(monkeypatch, long):
    class Broken(SoundStream):
        def blocks(self):
            yield [sound_of({}, 40.0)]
            raise AudioError("The disk is gone.")

    monkeypatch.setattr(parts, "SoundStream", Broken)
    monkeypatch.setattr(transcribing, "SoundStream", Broken)
    with pytest.raises(AudioError, match=r"^The disk is gone") as refused:
        ask(KnowingReader(), [user("What?", audio=[sound_of({}, 1.0), sound_of({}, 90.0)])], long)
    assert refused.value.clip == 2


SPOKEN = Spoken(100.0, 60.0, (Part(1.0, 3.5, "eins, \u4e8c"),), ("Something was lost.",), 2)


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_stores_give_back_what_they_took(kind, tmp_path):
    store = MemoryStore() if kind == "memory" else DiskStore(tmp_path / "deep" / "folder", "model 1")
    assert store.get("a") is None
    store.put("a", SPOKEN)
    assert store.get("a") == SPOKEN and store.get("b") is None
    if kind == "disk":
        assert DiskStore(tmp_path / "deep" / "folder", "model 2").get("a") is None
        (file,) = (tmp_path / "deep" / "folder").iterdir()
        assert file.stat().st_mode & 0o77 == 0
        file.write_text('{"seconds": 1')
        assert store.get("a") is None


def test_stores_are_bounded(monkeypatch, tmp_path):
    monkeypatch.setattr(transcript_store, "_MOST_CHARACTERS", 100)
    monkeypatch.setattr(transcript_store, "_MOST_FILES", 2)
    memory, disk = MemoryStore(), DiskStore(tmp_path, "m")
    for store in (memory, disk):
        for key in "abc":
            store.put(key, SPOKEN)
        assert store.get("c") == SPOKEN
    assert len(memory._kept) == 2 and len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(
        UserWarning, match="The transcript is not kept for the next question: .*file.* cannot be written"
    ):
        DiskStore(tmp_path / "file", "m").put("a", SPOKEN)


def test_content_decides_the_key(tmp_path):
    data = wav_bytes(1.0)
    (tmp_path / "a.wav").write_bytes(data)
    (tmp_path / "b.wav").write_bytes(data)
    same = [tmp_path / "a.wav", str(tmp_path / "b.wav"), data, io.BytesIO(data)]
    assert len({content_key(source) for source in same}) == 1
    samples = sound_of({0.1: 12}, 1.0)
    assert content_key(samples) == content_key((samples, RATE)) != content_key(sound_of({0.1: 13}, 1.0))
