"""What cannot be trained on is called by its name in the row or the config."""

import json

import pytest

from qwen2_audio.errors import ConfigError, PromptError
from qwen2_audio.train import dpo, sft
from qwen2_audio.train.formats import read_row

ASKED, SAID = {"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A dog."}
TALK: dict[str, object] = {"messages": [ASKED, SAID]}
CLIP = {"role": "assistant", "content": [{"type": "audio", "audio": "a.wav"}]}

ROWS = [
    ({**TALK, "rejected_response": " "}, "'rejected_response' is an empty answer"),
    ({**TALK, "rejected_response": "<audio>a cat"}, "'rejected_response' is an answer with an <audio> tag"),
    ({**TALK, "rejected_response": CLIP}, "'rejected_response' is an answer with a clip in it"),
    ({**TALK, "rejected_response": {**SAID, "x": 1}}, "'rejected_response' has the key 'x'"),
    ({**TALK, "rejected_response": ["a", "b"]}, "'rejected_response' is ['a', 'b']; expected the answer"),
    ({"messages": [ASKED], "chosen": "", "rejected": "a"}, "'chosen' is an empty answer"),
    ({"messages": [ASKED], "chosen": "a", "rejected": ""}, "'rejected' is an empty answer"),
    ({"messages": [ASKED], "chosen": {**SAID, "weight": 7}, "rejected": "a"}, "'chosen' has weight 7"),
    ({**TALK, "chosen": "a", "rejected": "b"}, "'chosen' comes after an answer"),
    ({"system": "Be brief.", "messages": [ASKED, ASKED, SAID]}, "Message 2 is the user's"),
    ({"system": ["Be brief."], "messages": [ASKED, SAID]}, "'system', part 1 is 'Be brief.'"),
    ({"prompt": "What is it?", "completion": "A dog."}, "'prompt' and 'completion' and no 'messages': a form of TRL"),
    ({"prompt": [ASKED], "completion": [SAID]}, "with the prompt, as the user's message, and the completion after it"),
    ({"prompt": [ASKED], "chosen": [SAID], "rejected": [SAID]}, "'prompt', 'chosen' and 'rejected' and no 'messages'"),
    ({"prompt": "a", "chosen": "b", "rejected": "c"}, "and 'chosen' and 'rejected' beside it"),
    ({"chosen": [ASKED, SAID], "rejected": [ASKED, SAID]}, "with the messages before the two answers"),
    ({"audio": "a.wav", "prompt": "a", "chosen": "b", "rejected": "c"}, "a form of TRL"),
    ({"audio": "a.wav", "prompt": "a"}, "An evaluation row needs audio, prompt, gt; 'gt' is missing"),
]


@pytest.mark.parametrize(("row", "sentence"), ROWS, ids=[sentence for _, sentence in ROWS])
def test_a_row_that_cannot_be_used(row, sentence, tmp_path):
    with pytest.raises(PromptError) as error:
        read_row(row, tmp_path)
    assert sentence in str(error.value)


def test_a_run_of_the_other_training_is_no_key(make):
    sft.run(make(steps=1))
    with pytest.raises(
        ConfigError, match=r"holds a run of train sft, and this is train dpo\. .* go on with the old one"
    ):
        dpo.run(make(steps=1))


def test_the_number_of_rows_is_no_key(make, rows, tmp_path):
    sft.run(make(steps=1))
    progress = tmp_path / "run" / "checkpoints" / "step-00000001" / "progress.json"
    saved = json.loads(progress.read_text())
    del saved["run"]["data_digest"]  # as before version 0.2
    progress.write_text(json.dumps(saved))
    rows.write_text(rows.read_text() + json.dumps(TALK) + "\n")
    with pytest.raises(ConfigError, match=r"rows\.jsonl was changed since \(it had 6 rows, and has 7\)"):
        sft.run(make(steps=1))


def test_other_data_is_named_by_its_key(make, rows, tmp_path):
    sft.run(make(steps=1))
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps(TALK) + "\n")
    with pytest.raises(
        ConfigError, match=r"holds a run with data\.train = '.*rows\.jsonl', and the config now says '.*ot"
    ):
        sft.run(make(steps=1, data={"train": str(other)}))


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("parts", [["encoder"], ["projector"], ["encoder", "projector"]])
def test_parts_that_no_row_trains(make, rows, method, parts):
    rows.write_text(json.dumps(TALK) + "\n")
    with pytest.raises(
        ConfigError, match=rf"parts is \['{parts[0]}'.*, and no row of .*rows\.jsonl has a clip, so that"
    ):
        sft.run(make(steps=1, parts=parts, method=method))


def test_one_clip_is_enough(make):
    sft.run(make(steps=4, parts=["encoder"], data={"batch_size": 1}))
