"""The stages that go on: forms without a clip, parts of recordings, renewed answers, pairs against declining."""

import json
from dataclasses import replace

import numpy as np
import pytest
from recipes.nano import pairs
from recipes.nano.clips import Entry
from recipes.nano.corpus import write_conversations
from recipes.nano.imagine import imagined
from recipes.nano.people import PEOPLE, PeopleWriter, writer_of
from recipes.nano.writer import FINE_TUNING, Writer

from qwen2_audio.evaluate.nano.mix import SPEECH, STRANGE, Clip
from qwen2_audio.evaluate.nano.typed import NO_SOUND
from qwen2_audio.evaluate.nano.world.facts import CHAT
from qwen2_audio.evaluate.nano.world.people import joined, spoken
from qwen2_audio.evaluate.nano.world.talk import SELF
from qwen2_audio.train import formats

STARTS = ("Notes on a", "What is said in a")
WHO = Clip(SPEECH, 1.0, -20.0, "Who are you?", "chat", CHAT[1].answer, "man")


class Voices:
    """A library of clips that nobody has made: what people say, sounds, and words from outside."""

    def __init__(self, count, folder):
        rng = np.random.default_rng(3)
        self.folder, self.entries = folder, []
        for i in range(count):
            said = joined([spoken("train", rng), spoken("train", rng)]) if i % 9 == 0 else spoken("train", rng)
            clip = Clip(SPEECH, 2.0, -20.0, said.text, said.family, said.answer, "woman")
            clip = imagined(rng) if i % 3 == 0 else Clip(STRANGE, 1.0, -20.0) if i % 7 == 0 else clip
            self.entries.append(Entry(clip, 0, 203, 200))

    def __len__(self):
        return len(self.entries)

    def wav(self, i):
        return self.folder / "wav" / f"{i}.wav"


def texts(conversation):
    parts = [p for m in conversation.messages if isinstance(m["content"], list) for p in m["content"]]
    return [part["text"] for part in parts if "text" in part]


def test_the_mix_has_every_form_and_the_first_lessons_have_theirs():
    assert sum(PEOPLE.values()) == pytest.approx(1)
    clips = [entry.clip for entry in Voices(60, None).entries]
    assert type(writer_of(clips, FINE_TUNING)) is Writer
    assert isinstance(writer_of(clips, PEOPLE), PeopleWriter)


@pytest.mark.parametrize("form", list(PEOPLE))
def test_a_form_is_conversations_that_end_in_an_answer(form):
    library = Voices(60, None)
    rng, writer = np.random.default_rng(1), PeopleWriter([entry.clip for entry in library.entries], {form: 1.0})
    for i in range(60):
        conversation = writer.write(i, rng)
        if conversation.base is not None:
            continue
        assert conversation.messages[-1]["role"] == "assistant"
        heard = [p["audio"] for m in conversation.messages if isinstance(m["content"], list)
                 for p in m["content"] if "audio" in p]  # fmt: skip
        assert heard == conversation.clips
        if form in ("notes", "transcript"):
            assert not heard and texts(conversation)[0].split(" recording of ")[0] in (
                "Notes on a",
                "What is said in a",
            )
        if form == "part":
            assert len(heard) == 1 and texts(conversation)[-1].startswith("\nThis is the part from ")
        if form == "then":
            assert all(m["content"] != NO_SOUND for m in conversation.messages)


def test_answers_that_were_taught_otherwise_are_renewed():
    rng = np.random.default_rng(1)
    said = {PeopleWriter([WHO], {"chat": 1.0}).write(0, rng).messages[-1]["content"] for _ in range(3)}
    assert SELF in said and CHAT[1].answer not in said
    asked = [one for one in pairs.questions(Single(WHO), rng, people=True) if one.chat]
    assert [one.truth for one in asked] == [SELF]
    assert [one.truth for one in pairs.questions(Single(WHO), rng) if one.chat] == [CHAT[1].answer]


class Single:
    def __init__(self, clip):
        self.entries = [Entry(clip, 0, 103, 100)]


def test_every_line_is_one_the_trainer_reads(tmp_path):
    write_conversations(Voices(80, tmp_path / "clips"), PEOPLE, 300, 0, tmp_path / "data" / "people.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "data" / "people.jsonl").read_text().splitlines()]
    assert len(lines) == 300
    rows = [formats.read_row(row, tmp_path / "data") for row in lines]
    assert {type(row) for row in rows} == {formats.ChatRow, formats.BaseRow}


def test_who_declines_rightly_must_hear_as_many_known_words_more(tmp_path, monkeypatch):
    library = Voices(300, tmp_path / "clips")

    class Deceived:
        """Takes everything for a sentence of its world."""

        def __init__(self, folder):
            pass

        def answers(self, conversations, **options):
            return ["Turn on the light in the kitchen."] * len(conversations)

    monkeypatch.setattr(pairs, "Listener", Deceived)
    monkeypatch.setattr(pairs, "HEARD", 10)
    first = pairs.write_pairs(tmp_path, library, 0, tmp_path / "data" / "dpo.jsonl")
    people = pairs.write_pairs(tmp_path, library, 0, tmp_path / "data" / "people.jsonl", people=True)
    assert first["heard"] == 10
    rows = [json.loads(line) for line in (tmp_path / "data" / "people.jsonl").read_text().splitlines()]
    declined = [row for row in rows if row["messages"][-1]["content"] == pairs.UNCLEAR]
    assert len(declined) > 20 and people["heard"] > 30
    assert any(row["messages"][-1]["content"] == "Nothing." for row in rows)


def test_the_extra_words_are_those_alone_first(monkeypatch):
    monkeypatch.setattr(pairs, "HEARD", 10)
    library = Single(WHO)
    families = ("word", "switch", "move", "people")
    library.entries = [Entry(replace(WHO, text=f"Say {i}.", family=families[i % 4]), 0, 3, 2) for i in range(400)]
    clear = list(pairs._clear(library, np.random.default_rng(0), 20))
    assert len(clear) == 30 and all(one.truth == one.clip.text for one in clear)
    assert {one.clip.family for one in clear[10:]} == {"word"} != {one.clip.family for one in clear[:10]}
