import io
import json

import pytest
from rich.console import Console

from qwen2_audio.inputs.processor import Qwen2AudioProcessor
from qwen2_audio.train.config import AugmentConfig, DataConfig, TrainConfig
from qwen2_audio.train.data import Dataset
from qwen2_audio.train.preview import preview, run


def rows(answer="A dog."):
    user = {"role": "user", "content": [{"type": "audio", "audio": "dog.wav"}, {"type": "text", "text": "What?"}]}
    return [{"messages": [user, {"role": "assistant", "content": answer}]}, {"messages": []}]


@pytest.fixture
def dataset(tiny_checkpoint, wav_file, tmp_path):
    wav_file("dog.wav", 1.0)
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows())), encoding="utf-8")
    return Dataset(path, Qwen2AudioProcessor.from_pretrained(tiny_checkpoint))


def printed(dataset, terminal=False, **options):
    console = Console(file=io.StringIO(), force_terminal=terminal, color_system="standard" if terminal else None)
    preview(dataset, console, **options)
    return console.file.getvalue()


def test_without_colours_what_is_trained_on_stands_in_marks(dataset):
    text = printed(dataset)
    assert (
        "Line 1: " in text and "clips: 1.00 s" in text
        and "<|im_start|>user\nAudio 1: <|audio_bos|><|AUDIO|>×25<|audio_eos|>\nWhat?<|im_end|>\n"
        "<|im_start|>assistant\n⟦A dog.<|im_end|>⟧\n" in text
    )  # fmt: skip
    assert text.count("⟦") == 1
    assert "Left out: " in text and "line 2: The conversation is []" in text


def test_the_trained_tokens_are_listed_one_by_one(dataset):
    example = dataset.example(0)
    ids = [token for token, flag in zip(example.ids, example.trained, strict=True) if flag]
    listed = printed(dataset, rows=1).split("Trained tokens: ")[1].split("\n")[0]
    tokenizer = dataset.processor.tokenizer
    assert listed == " ".join(f"{token}:{tokenizer.decode([token])!r}" for token in ids)
    assert f"trained on {len(ids)};" in printed(dataset, rows=1)


def test_on_a_terminal_what_is_trained_on_is_green(dataset):
    text = printed(dataset, terminal=True, rows=1)
    assert "\x1b[1;32mA dog.<|im_end|>\x1b[0m" in text
    assert "⟦" not in text


def test_markup_in_data_is_text(tiny_checkpoint, wav_file, tmp_path):
    wav_file("dog.wav", 0.5)
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(rows("[bold]no[/bold] :smile:")[0]), encoding="utf-8")
    text = printed(Dataset(path, Qwen2AudioProcessor.from_pretrained(tiny_checkpoint)))
    assert "⟦[bold]no[/bold] :smile:<|im_end|>⟧" in text


def test_run_draws_what_the_model_gets(tiny_checkpoint, dataset, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    data = DataConfig(train=str(dataset.path), augment=AugmentConfig(spec_augment=1.0))
    pictures = run(TrainConfig(data=data, output=str(tmp_path / "out"), model=str(tiny_checkpoint)))
    assert pictures == [tmp_path / "out" / "preview" / "line-1-clip-1.png"]
    assert pictures[0].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    out = capsys.readouterr().out
    assert "⟦A dog.<|im_end|>⟧" in out and "Drawn: " in out


def test_both_answers_of_a_pair_are_shown(tiny_checkpoint, wav_file, tmp_path):
    wav_file("dog.wav", 0.5)
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**rows()[0], "rejected_response": "A cat."}), encoding="utf-8")
    text = printed(Dataset(path, Qwen2AudioProcessor.from_pretrained(tiny_checkpoint)))
    assert text.index("⟦A dog.<|im_end|>⟧") < text.index("rejected answer") < text.index("⟦A cat.<|im_end|>⟧")
