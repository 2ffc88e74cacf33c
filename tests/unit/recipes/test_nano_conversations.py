"""What nano is taught to say: unambiguous words, the official template, a loss on the assistant's words only."""

import json

import numpy as np
import pytest
from recipes.nano import pairs
from recipes.nano.clips import Entry
from recipes.nano.conversations import (
    TRANSCRIBE_HELD_OUT,
    UNCLEAR,
    WHAT_HELD_OUT,
    Conversation,
    anybody,
    assistant,
    behind,
    is_it,
    sex,
    transcribe,
    user,
    voice_chat,
)
from recipes.nano.corpus import write_conversations
from recipes.nano.imagine import imagined
from recipes.nano.writer import FINE_TUNING, PRETRAINING, Writer

from qwen2_audio.evaluate.nano.mix import SPEECH, STRANGE, Clip
from qwen2_audio.evaluate.nano.questions import abstains
from qwen2_audio.evaluate.nano.sounds.kinds import NAMES
from qwen2_audio.evaluate.nano.wording import TRANSCRIBE, WHAT
from qwen2_audio.evaluate.nano.words import WORDS
from qwen2_audio.inputs.processor import Qwen2AudioProcessor
from qwen2_audio.train import formats

SAID = Clip(SPEECH, 2.0, -20.0, "What is one plus one?", "arithmetic", "One plus one is two.", "woman")
MIXED = Clip(SPEECH, 2.0, -20.0, "Hello.", "chat", "Hello! How can I help you?", "man", "", "dog")


class Imagined:
    """A library of clips that nobody has made."""

    def __init__(self, count, folder):
        rng = np.random.default_rng(3)
        self.folder = folder
        self.entries = [Entry(imagined(rng), 0, 203, 200) for _ in range(count)]

    def __len__(self):
        return len(self.entries)

    def wav(self, i):
        return self.folder / "wav" / f"{i}.wav"


def test_held_out_wordings_are_never_trained_on():
    trained = {question for questions in WHAT.values() for question in questions}
    held_out = {question for questions in WHAT_HELD_OUT.values() for question in questions}
    assert not trained & held_out
    assert set(WHAT) == set(WHAT_HELD_OUT)
    assert not set(TRANSCRIBE) & set(TRANSCRIBE_HELD_OUT)


def test_yes_or_no_is_right():
    rng = np.random.default_rng(1)
    for name in NAMES:
        for _ in range(6):
            question, answer = is_it(Clip(name, 1.0, -20.0), rng)
            asked_right = name in WORDS and WORDS[name].noun in question
            assert answer.startswith("Yes" if asked_right else "No")


def test_speech_is_written_down_and_answered_and_what_cannot_be_understood_is_not():
    rng = np.random.default_rng(1)
    assert transcribe(SAID, rng)[1] == SAID.text
    assert voice_chat(SAID, rng) == SAID.answer
    assert sex(SAID, rng)[1] == "The speaker is a woman."
    assert behind(MIXED, rng)[1] == "I hear a dog barking."
    assert behind(SAID, rng)[1] == "There is nothing in the background."
    for kind in (STRANGE, "voice"):
        strange = Clip(kind, 2.0, -20.0)
        assert abstains(transcribe(strange, rng)[1])
        assert abstains(voice_chat(strange, rng))
        assert anybody(strange, rng)[1].startswith("Yes")
    assert transcribe(Clip("dog", 2.0, -20.0), rng)[1].startswith("Nobody is speaking. I hear ")
    assert anybody(Clip("silence", 2.0, -120.0), rng)[1] == "No, nobody is speaking."


@pytest.mark.parametrize("shares", [PRETRAINING, FINE_TUNING])
def test_shares_are_shares_and_the_same_generator_writes_the_same(shares, tmp_path):
    assert sum(shares.values()) == pytest.approx(1)
    clips = [entry.clip for entry in Imagined(60, tmp_path).entries]
    first, second = (
        [Writer(clips, shares).write(i, rng) for i in range(60)]
        for rng in (np.random.default_rng(4), np.random.default_rng(4))
    )
    assert first == second


def test_every_line_of_the_data_files_is_one_the_trainer_reads(tmp_path):
    library = Imagined(80, tmp_path / "clips")
    write_conversations(library, PRETRAINING, 200, 0, tmp_path / "data" / "joint.jsonl")
    sft = [json.loads(line) for line in (tmp_path / "data" / "joint.jsonl").read_text().splitlines()]
    assert len(sft) == 200
    rows = [formats.read_row(row, tmp_path / "data") for row in sft]
    assert {type(row) for row in rows} == {formats.ChatRow, formats.BaseRow}


def test_pairs_are_the_mistakes_that_a_checkpoint_makes(tmp_path, monkeypatch):
    library = Imagined(80, tmp_path / "clips")

    class Parrot:
        """Right about everything once, then always the same."""

        def __init__(self, folder):
            self.asked = 0

        def answers(self, conversations, **options):
            self.asked += len(conversations)
            return ["Three and four is eight."] * len(conversations)

    monkeypatch.setattr(pairs, "Listener", Parrot)
    counts = pairs.write_pairs(tmp_path, library, 0, tmp_path / "data" / "dpo.jsonl")
    dpo = [json.loads(line) for line in (tmp_path / "data" / "dpo.jsonl").read_text().splitlines()]
    assert len(dpo) > 60 and len({json.dumps(row) for row in dpo}) == len(dpo)
    read = [formats.read_row(row, tmp_path / "data") for row in dpo]
    assert {pair.rejected["content"] for pair in read} == {"Three and four is eight.", UNCLEAR}
    # A parrot's wrong facts give way to the abstention, and only what it says rightly would give that way in turn.
    assert set(counts) == {"truth", "caution", "heard"} and counts["caution"] > 20
    cautious = [row for row in dpo if row["messages"][-1]["content"] == UNCLEAR]
    assert len([row for row in cautious if row["rejected_response"] == UNCLEAR]) == 0


def test_caution_is_rejected_as_often_as_it_is_chosen(tmp_path, monkeypatch):
    library = Imagined(160, tmp_path / "clips")
    asked = {tuple(map(str, pairs._heard(one, library))): one for one in questions_of(library)}

    class Half:
        """Right about every second clip, deaf to every eighth."""

        def __init__(self, folder):
            pass

        def answers(self, conversations, **options):
            found = [asked[tuple(map(str, messages))] for messages in conversations]
            return [self.answer(one) for one in found]

        def answer(self, one):
            number = one.conversation.clips[0]
            return UNCLEAR if number % 8 == 1 else "Paris." if number % 2 else one.truth

    monkeypatch.setattr(pairs, "Listener", Half)
    counts = pairs.write_pairs(tmp_path, library, 0, tmp_path / "data" / "dpo.jsonl")
    assert min(counts.values()) > 3
    assert abs(counts["caution"] - counts["hearing"] - counts["courage"]) < 0.3 * counts["caution"]
    assert 0 < counts["heard"] <= pairs.HEARD


def questions_of(library):
    return pairs.questions(library, np.random.default_rng((0, 7)))


def test_what_counts_as_a_mistake():
    def asked(clip, truth):
        return pairs.Asked(Conversation([user(0), assistant(truth)], [0]), clip)

    dog = asked(Clip("dog", 2.0, -20.0), "I hear a dog barking.")
    assert dog.wrong("I hear a cat meowing.") and not dog.wrong("It sounds like a barking dog.")
    said = asked(SAID, "Two plus two is four.")
    assert said.wrong("Two plus two is five.") and said.wrong("I hear a voice, but I cannot make out the words.")
    assert not said.wrong("two plus two is four")
    noise = asked(Clip("noise", 2.0, -20.0), "Nobody is speaking. I only hear noise.")
    assert noise.wrong("I hear a dog barking.") and not noise.wrong("I only hear noise.")


def test_the_template_of_the_saved_processor_is_the_official_one(tmp_path, tokenizer):
    from recipes.nano.tokenizer import save_processor

    save_processor(tokenizer, tmp_path)
    processor = Qwen2AudioProcessor.from_pretrained(tmp_path)
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "audio", "audio": "x"}]}], add_generation_prompt=True, tokenize=False
    )
    assert "Audio 1: <|audio_bos|><|AUDIO|><|audio_eos|>" in text
