import base64
from pathlib import Path

import pytest

from qwen2_audio.errors import PromptError
from qwen2_audio.train.formats import BaseRow, ChatRow, read_row

FOLDER = Path("data")
DOG = FOLDER / "dog.wav"
ASKED = {"role": "user", "content": [{"type": "audio", "audio": DOG}, {"type": "text", "text": "What?"}]}
SAID = {"role": "assistant", "content": "A dog."}
QUESTION = {"role": "user", "content": "What?"}

SAME_ROW = {
    "ours": {
        "messages": [
            {"role": "user", "content": [{"type": "audio", "audio": "dog.wav"}, {"type": "text", "text": "What?"}]},
            SAID,
        ]
    },
    "official": {
        "conversations": [
            {"role": "user", "content": [{"type": "audio", "audio_url": "dog.wav"}, {"type": "text", "text": "What?"}]},
            {"role": "assistant", "content": "A dog."},
        ]
    },
    "ms-swift": {"messages": [{"role": "user", "content": "<audio>What?"}, SAID], "audios": ["dog.wav"]},
    "ms-swift with a path object": {
        "messages": [{"role": "user", "content": "<audio>What?"}, SAID],
        "audios": [{"path": "dog.wav", "bytes": None}],
    },
    "LLaMA-Factory": {
        "conversations": [{"from": "human", "value": "<audio>\nWhat?"}, {"from": "gpt", "value": "A dog."}],
        "audios": ["dog.wav"],
        "id": "row 7",
        "images": [],
    },
    "OpenAI": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "audio_url", "audio_url": {"url": "dog.wav"}},
                    {"type": "text", "text": "What?"},
                ],
            },
            SAID,
        ]
    },
}


@pytest.mark.parametrize("name", list(SAME_ROW))
def test_every_form_reads_as_the_same_conversation(name):
    assert read_row(SAME_ROW[name], FOLDER) == ChatRow([ASKED, SAID], (1,))


def test_input_audio_is_bytes():
    data = base64.b64encode(b"RIFF").decode()
    parts = [{"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}]
    row = read_row({"messages": [{"role": "user", "content": parts}, SAID]}, FOLDER)
    assert row.messages[0]["content"] == [{"type": "audio", "audio": b"RIFF"}]


def test_evaluation_row():
    row = {"audio": "dog.wav", "prompt": "Recognize: <|en|>", "gt": "hello", "source": "librispeech", "task": "ASR"}
    assert read_row(row, FOLDER) == BaseRow(DOG, "Recognize: <|en|>", "hello")


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("a/b.wav", FOLDER / "a/b.wav"),
        ("/abs/b.wav", Path("/abs/b.wav")),
        ("file:///abs/my%20b.wav", Path("/abs/my b.wav")),
        ("https://host/b.wav", "https://host/b.wav"),
        ("data:audio/wav;base64,AAAA", "data:audio/wav;base64,AAAA"),
        ({"bytes": "UklGRg=="}, b"RIFF"),
        ({"bytes": None, "path": "b.wav"}, FOLDER / "b.wav"),
    ],
)
def test_where_a_clip_may_lie(given, read):
    row = read_row({"messages": [{"role": "user", "content": [{"audio": given}]}, SAID]}, FOLDER)
    assert row.messages[0]["content"] == [{"type": "audio", "audio": read}]


def test_tags_take_the_clips_in_order_over_the_turns():
    row = {
        "messages": [
            {"role": "user", "content": "<audio><audio>Same?"},
            {"role": "assistant", "content": "No."},
            {"role": "user", "content": "And this: <audio>"},
            SAID,
        ],
        "audios": ["1.wav", "2.wav", "3.wav"],
        "system": "Be brief.",
    }
    messages = read_row(row, FOLDER).messages
    assert messages[0] == {"role": "system", "content": "Be brief."}
    heard = [part["audio"].name for m in messages if isinstance(m["content"], list) for part in m["content"]
             if "audio" in part]  # fmt: skip
    assert heard == ["1.wav", "2.wav", "3.wav"]
    assert messages[3]["content"] == [
        {"type": "text", "text": "And this: "}, {"type": "audio", "audio": FOLDER / "3.wav"}
    ]  # fmt: skip


def test_a_tag_inside_a_part_is_text():
    parts = [{"type": "text", "text": "Spell <audio>."}]
    assert read_row({"messages": [{"role": "user", "content": parts}, SAID]}, FOLDER).messages[0]["content"] == parts


@pytest.mark.parametrize("switch", [{"weight": 0}, {"loss": False}])
def test_answers_switched_off_by_the_row(switch):
    first = {"role": "assistant", "content": "No.", **switch}
    row = read_row({"messages": [QUESTION, first, QUESTION, SAID]}, FOLDER)
    assert row.answers == (3,)
    assert row.messages[1] == {"role": "assistant", "content": "No."}


PAIRS = [
    {"messages": [QUESTION, SAID], "rejected_response": "A cat."},
    {"messages": [QUESTION], "chosen": "A dog.", "rejected": "A cat."},
    {"messages": [QUESTION], "chosen": SAID, "rejected": {"role": "assistant", "content": "A cat."}},
    {
        "conversations": [{"from": "human", "value": "What?"}],
        "chosen": {"from": "gpt", "value": "A dog."},
        "rejected": {"from": "gpt", "value": "A cat."},
    },
    {"messages": [QUESTION], "chosen": [SAID], "rejected": [{"role": "assistant", "content": "A cat."}]},
]


@pytest.mark.parametrize("row", PAIRS)
def test_pairs(row):
    rejected = {"role": "assistant", "content": "A cat."}
    assert read_row(row, FOLDER) == ChatRow([QUESTION, SAID], (1,), rejected)


def talk(*contents, **row):
    roles = ["user", "assistant"] * 4
    return {"messages": [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)], **row}


REFUSED = [
    (["not", "a", "row"], "is a list; expected an object"),
    (
        talk([{"type": "audio", "audio": "file://clips/dog.wav"}], "a"),
        "Message 1, part 1 names a clip that is not here: 'file://clips/dog.wav' names the host 'clips'; expected",
    ),
    ({"text": "hello"}, "neither of 'messages' and 'conversations'"),
    ({"messages": [], "conversations": []}, "both of 'messages' and 'conversations'"),
    ({"messages": []}, "expected a list of messages"),
    ({"messages": ["hello"]}, "Message 1 is 'hello'"),
    ({"messages": [{"role": ["user"], "content": "a"}, SAID]}, "has the role ['user']"),
    ({"messages": [{"role": "tool", "content": "a"}, SAID]}, "has the role 'tool'"),
    ({"messages": [{"content": "a"}, SAID]}, "neither of 'role' and 'from'"),
    ({"messages": [{"role": "user", "content": "a", "value": "b"}, SAID]}, "both of 'content' and 'value'"),
    ({"messages": [{"role": "user", "content": "a", "contents": "b"}, SAID]}, "Did you mean 'content'?"),
    (talk("a"), "does not end in an answer"),
    ({"messages": [SAID]}, "Message 1 is the assistant's, expected the user's"),
    ({"messages": [QUESTION, QUESTION, SAID]}, "Message 2 is the user's, expected the assistant's"),
    ({"messages": [QUESTION, SAID, {"role": "system", "content": "x"}]}, "Message 3 is the system's"),
    (talk("a", "  "), "Message 2 is an empty answer"),
    (talk("a", None), "has neither of 'content' and 'value'"),
    (talk("<audio>a", "b"), "1 <audio> tag(s) and 0 clip(s)"),
    (talk("<audio><audio>a", "b", audios=["1.wav"]), "2 <audio> tag(s) and 1 clip(s)"),
    (talk("a", "b", audios=["1.wav"]), "0 <audio> tag(s) and 1 clip(s)"),
    (talk("a", "b <audio>", audios=["1.wav"]), "the model answers in text"),
    (talk("a", [{"audio": "x.wav"}]), "the model answers in text"),
    (talk("a", "b", audio="1.wav"), "Did you mean 'audios'?"),
    (talk("a", "b", images=["1.png"]), "has 'images', which is not trained on"),
    (talk("a", "b", tools=[{}]), "has 'tools'"),
    (talk([{"type": "image_url", "image_url": "x"}], "b"), "has the key 'image_url'"),
    (talk([{"type": "text"}], "b"), "expected either 'text' or one clip"),
    (talk([{"text": "a", "audio": "b.wav"}], "b"), "expected either 'text' or one clip"),
    (talk([{"text": 3}], "b"), "with 3; expected a text"),
    (talk([{"audio": 3}], "b"), "names a clip by 3"),
    (talk([{"audio": {"bytes": "§"}}], "b"), "base64"),
    (talk([{"audio": {"bytes": "a"}}], "b"), "that is not base64"),
    (talk("a", "b", rejected="c"), "a pair needs both"),
    (talk("a", chosen="c"), "a pair needs both"),
    (talk("a", "b", rejected_response="b"), "are the same"),
    (talk("a", "b", rejected_response=""), "empty answer"),
    (talk("a", "b", rejected_response=[{}, {}]), "expected the answer as a text"),
    (talk("a", "b", rejected_response="c", rejected="d", chosen="e"), "both 'rejected' and 'rejected_response'"),
    ({"messages": [QUESTION, {**SAID, "weight": 0}]}, "nothing is left to learn"),
    ({"messages": [QUESTION, {**SAID, "weight": 0.5}]}, "weight 0.5; expected 0 or 1"),
    ({"messages": [{"role": "system", "content": "a"}, QUESTION, SAID], "system": "b"}, "give it once"),
    ({"audio": "a.wav", "prompt": "b"}, "'gt' is missing"),
    ({"audio": "a.wav", "prompt": "b", "gt": " "}, "'gt' of the evaluation row is ' '"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "sentence"), REFUSED)
def test_what_cannot_be_learned_from_is_refused(row, sentence):
    with pytest.raises(PromptError) as error:
        read_row(row, FOLDER)
    assert sentence in str(error.value)


def test_nulls_are_things_that_are_not_there():
    """Arrow and the like write null for what a row has not."""
    part = {"type": "audio", "audio": "dog.wav", "text": None, "audio_url": None}
    told = {"role": "user", "content": [part], "from": None, "value": None, "weight": None}
    row = {"messages": [told, {"role": "assistant", "content": "A dog."}], "rejected_response": None, "chosen": None}
    found = read_row({**row, "rejected": None, "conversations": None, "audios": None, "images": None}, FOLDER)
    assert found == read_row(
        {"messages": [{"role": "user", "content": [{"type": "audio", "audio": "dog.wav"}]}, row["messages"][1]]}, FOLDER
    )


@pytest.mark.parametrize("key", ["conversation_id", "chosen_id", "rejected_reason", "message_ids", "chosen_score"])
def test_what_is_said_about_a_row_is_no_misspelt_key(key):
    assert read_row(talk("a", "b") | {key: "7"}, FOLDER) == read_row(talk("a", "b"), FOLDER)


def test_answers_that_are_the_same_in_two_spellings_are_no_pair():
    row = talk("a", "A dog.") | {
        "rejected_response": {
            "role": "assistant",
            "content": [{"type": "text", "text": "A "}, {"type": "text", "text": "dog."}],
        }
    }
    with pytest.raises(PromptError, match="the same; there is nothing to prefer"):
        read_row(row, FOLDER)


@pytest.mark.parametrize(
    ("clip", "sentence"),
    [("file://[bad", "which is no URL"), ("UklGR." * 1000, "a clip that is not base64")],
)
def test_a_clip_that_is_no_path_is_said(clip, sentence):
    with pytest.raises(PromptError, match=sentence):
        read_row(
            {
                "messages": [{"role": "user", "content": "<audio>"}, {"role": "assistant", "content": "b"}],
                "audios": [clip],
            },
            FOLDER,
        )
