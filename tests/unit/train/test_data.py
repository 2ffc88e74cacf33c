import base64
import json

import numpy as np
import pytest
import torch

from qwen2_audio.audio import mel
from qwen2_audio.errors import ConfigError, PromptError
from qwen2_audio.inputs.processor import Qwen2AudioProcessor
from qwen2_audio.train.batches import batches, check_batch, collate, read, read_pairs
from qwen2_audio.train.config import AugmentConfig, DataConfig
from qwen2_audio.train.data import Dataset
from qwen2_audio.train.loss import IGNORED
from qwen2_audio.train.quarantine import BadRow, Quarantine


@pytest.fixture(scope="module")
def processor(tiny_checkpoint):
    return Qwen2AudioProcessor.from_pretrained(tiny_checkpoint)


@pytest.fixture
def write(tmp_path):
    def write(*rows, name="rows.jsonl"):
        lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


def row(audio=None, question="What?", answer="A dog.", **more):
    parts = [{"type": "audio", "audio": audio}] if audio else []
    content = [*parts, {"type": "text", "text": question}]
    return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}], **more}


def config(**settings):
    return DataConfig(train="rows.jsonl", **settings)


def said(example, processor):
    return processor.tokenizer.decode([i for i, flag in zip(example.ids, example.trained, strict=True) if flag])


# -- rows and clips


def test_an_example_holds_ids_mask_and_the_unpadded_log_mel(write, wav_file, processor):
    wav_file("dog.wav", 1.0)
    example = Dataset(write(row("dog.wav")), processor).example(0)
    assert said(example, processor) == "A dog.<|im_end|>"
    assert example.ids.count(processor.audio_token_id) == 25
    assert [clip.shape for clip in example.mels] == [(128, 102)]
    assert (example.frames, example.line) == ([100], 1)


def test_rows_are_found_by_offset_whatever_lies_between(write, processor):
    path = write(row(question="é" * 50, answer="one"), "", "   ", row(answer="zwei 中文"), row(answer="three"))
    dataset = Dataset(path, processor)
    assert len(dataset) == 3
    assert [said(dataset.example(i), processor) for i in (2, 0, 1)] == [
        "three<|im_end|>", "one<|im_end|>", "zwei 中文<|im_end|>"
    ]  # fmt: skip
    assert [dataset.example(i).line for i in range(3)] == [1, 4, 5]


def test_a_clip_by_path_bytes_and_data_uri_is_the_same(write, wav_file, processor):
    file = wav_file("dog.wav", 0.5)
    encoded = base64.b64encode(file.read_bytes()).decode()
    sources = ["dog.wav", str(file), file.as_uri(), {"bytes": encoded}, f"data:audio/wav;base64,{encoded}"]
    dataset = Dataset(write(*(row(source) for source in sources)), processor)
    first = dataset.example(0)
    for index in range(1, len(sources)):
        example = dataset.example(index)
        assert example.ids == first.ids
        assert np.array_equal(example.mels[0], first.mels[0])


def test_evaluation_rows_take_the_base_form(write, wav_file, processor):
    wav_file("dog.wav", 1.0)
    path = write({"audio": "dog.wav", "prompt": "Recognize:", "gt": "woof", "source": "x"})
    example = Dataset(path, processor).example(0)
    text = processor.tokenizer.decode(example.ids)
    assert text == "<|audio_bos|>" + "<|AUDIO|>" * 25 + "<|audio_eos|>Recognize:woof<|endoftext|>"
    assert said(example, processor) == "woof<|endoftext|>"


def test_all_turns_or_the_last(write, processor):
    talk = row(answer="one")["messages"] + row(answer="two")["messages"]
    path = write({"messages": talk})
    assert said(Dataset(path, processor).example(0), processor) == "one<|im_end|>two<|im_end|>"
    assert said(Dataset(path, processor, config(turns="last")).example(0), processor) == "two<|im_end|>"


def test_an_answer_switched_off_is_not_trained_on(write, processor):
    talk = row(answer="one")["messages"] + row(answer="two")["messages"]
    talk[1]["loss"] = False
    assert said(Dataset(write({"messages": talk}), processor).example(0), processor) == "two<|im_end|>"
    talk[1]["loss"], talk[3]["weight"] = True, 0
    path = write({"messages": talk})
    assert said(Dataset(path, processor).example(0), processor) == "one<|im_end|>"
    with pytest.raises(BadRow, match="The last answer is switched off"):
        Dataset(path, processor, config(turns="last")).example(0)


def test_a_pair_shares_prompt_and_sound_and_differs_in_the_last_answer(write, wav_file, processor):
    wav_file("dog.wav", 0.5)
    talk = row("dog.wav", answer="Hm.")["messages"] + row(answer="A dog.")["messages"]
    pair = Dataset(write({"messages": talk, "rejected_response": "A cat."}), processor).pair(0)
    assert said(pair.chosen, processor) == "A dog.<|im_end|>"
    assert said(pair.rejected, processor) == "A cat.<|im_end|>"
    start = pair.chosen.trained.index(True)
    assert pair.chosen.ids[:start] == pair.rejected.ids[:start]
    assert pair.chosen.mels[0] is pair.rejected.mels[0]


# -- quarantine


def test_bad_rows_are_reported_with_line_and_reason_and_training_goes_on(write, wav_file, tmp_path, processor):
    wav_file("good.wav", 0.5)
    wav_file("long.wav", 31.0)
    wav_file("short.wav", 0.01)
    cut = wav_file("cut.wav", 1.0)
    cut.write_bytes(cut.read_bytes()[:10_000])
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("not a sound")
    reasons = [
        (row("long.wav"), "30 s are heard at a time"),
        (row("short.wav"), "too short, it makes 0 audio tokens"),
        (row("cut.wav"), "cut.wav"),
        (row("empty.wav"), "is empty (0 bytes)"),
        (row("text.wav"), "is text, not a sound"),
        (row("absent.wav"), "No such file"),
        (row(str(tmp_path)), "No such file"),
        ("{not json", "The line is not JSON"),
        ("[" * 100_000, "The line is not JSON"),
        ({"messages": [{"role": "user", "content": "a"}]}, "does not end in an answer"),
        (row("good.wav", audios=["good.wav"]), "0 <audio> tag(s) and 1 clip(s)"),
        (json.dumps(row(answer="\ud800")), "half a character"),
        (row(question="long " * 500), "expected at most 400 (max_tokens)"),
    ]
    path = write(row("good.wav"), *(bad for bad, _ in reasons), row(answer="last"))
    dataset = Dataset(path, processor, config(max_tokens=400))
    quarantine = Quarantine(tmp_path / "out" / "quarantine.jsonl")
    plan = batches(dataset, batch_size=4)
    found = [example for examples in read(dataset, plan, quarantine) for example in examples]
    assert sorted(example.line for example in found) == [1, len(reasons) + 2]
    report = [json.loads(line) for line in quarantine.path.read_text(encoding="utf-8").splitlines()]
    by_line = {entry["line"]: entry["reason"] for entry in report}
    assert sorted(by_line) == list(range(2, len(reasons) + 2))
    for line, (_, reason) in enumerate(reasons, 2):
        assert reason in by_line[line], by_line[line]
    assert {entry["file"] for entry in report} == {str(path)}
    assert quarantine.summary().startswith(f"{len(reasons)} row(s) left out, the first: {path}, line ")


def test_bytes_that_are_not_utf8_are_one_bad_row(tmp_path, processor):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"messages": "\xff"}\n' + json.dumps(row()).encode())
    dataset = Dataset(path, processor)
    with pytest.raises(BadRow, match=r"rows.jsonl, line 1: The line is not UTF-8 text \(byte 14\)"):
        dataset.example(0)
    assert dataset.example(1).line == 2


def test_a_row_is_reported_once_over_epochs_and_after_a_restart(write, tmp_path, processor):
    dataset = Dataset(write("{", row()), processor)
    report = tmp_path / "q.jsonl"
    for _ in range(2):
        quarantine = Quarantine(report)
        for epoch in range(2):
            list(read(dataset, batches(dataset, batch_size=2, epoch=epoch), quarantine, epoch=epoch))
        assert len(quarantine) == 1
        report.write_text(report.read_text() + '{"file": "cut o')  # killed while writing
    assert sum("not JSON" in line for line in report.read_text().splitlines()) == 1


def test_nothing_usable_stops_with_the_reason(write, processor):
    dataset = Dataset(write("{", "{"), processor)
    with pytest.raises(PromptError, match=r"No row of .* could be used. 2 row\(s\) left out"):
        list(read(dataset, batches(dataset, batch_size=1), Quarantine()))


def test_dpo_needs_a_rejected_answer(write, processor):
    dataset = Dataset(write(row(), row(rejected_response="A cat.")), processor)
    quarantine = Quarantine()
    assert [[pair.chosen.line for pair in pairs] for pairs in read_pairs(dataset, [[0, 1]], quarantine)] == [[2]]
    assert "no rejected answer" in quarantine.summary()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [("", "has no rows"), ("\n \n", "has no rows"), ('[{"messages": []}]', "is a JSON list; expected JSONL")],
)
def test_files_without_rows_are_refused(tmp_path, processor, content, sentence):
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(PromptError, match=sentence):
        Dataset(path, processor)
    with pytest.raises(PromptError, match="cannot be read: No such file"):
        Dataset(tmp_path / "absent.jsonl", processor)


def test_a_template_of_its_own_and_a_senseless_augmentation_are_refused(write, tiny_checkpoint):
    processor = Qwen2AudioProcessor.from_pretrained(tiny_checkpoint)
    with pytest.raises(ConfigError, match=r"augment.noise is 2; expected a chance"):
        Dataset(write(row()), processor, config(augment=AugmentConfig(noise=2.0)))
    processor.chat_template = "{{ messages[0]['content'] }}"
    with pytest.raises(ConfigError, match="a chat template of its own"):
        Dataset(write(row()), processor)


# -- batches


@pytest.fixture
def many(write, wav_file, processor):
    for n in range(5):
        wav_file(f"{n}.wav", 0.2 + 0.4 * n)
    return Dataset(write(*(row(f"{n % 5}.wav", answer="It barks. " * (1 + 4 * (n % 4))) for n in range(40))), processor)


def test_lengths_come_from_the_headers_and_are_exact_here(many):
    assert many.lengths().tolist() == [len(many.example(i).ids) for i in range(len(many))]


@pytest.mark.parametrize("budget", [{"batch_size": 3}, {"batch_tokens": 400}])
def test_every_row_once_in_batches_of_like_length_the_same_each_time(many, budget):
    plan = batches(many, seed=1, epoch=2, **budget)
    assert sorted(index for batch in plan for index in batch) == list(range(40))
    assert plan == batches(many, seed=1, epoch=2, **budget)
    assert plan != batches(many, seed=1, epoch=3, **budget)
    assert plan != batches(many, seed=2, epoch=2, **budget)
    lengths = many.lengths()
    padded = sum(lengths[batch].max() * len(batch) for batch in plan)
    assert padded < 1.2 * lengths.sum()
    if "batch_tokens" in budget:
        assert max(lengths[batch].max() * len(batch) for batch in plan) <= 400
    else:
        assert {len(batch) for batch in plan} <= {3, 1}


def test_a_row_longer_than_the_budget_is_a_batch_by_itself(many):
    assert {len(batch) for batch in batches(many, batch_tokens=1)} == {1}


@pytest.mark.parametrize("budget", [{}, {"batch_size": 1, "batch_tokens": 1}, {"batch_size": -1}])
def test_one_budget_must_be_given(many, budget):
    with pytest.raises(ConfigError, match="expected one of them above 0"):
        batches(many, **budget)


def test_worker_processes_change_nothing(write, wav_file, processor, tmp_path):
    wav_file("dog.wav", 0.5)
    varied = AugmentConfig(speed=(0.9, 1.1), noise=1.0, spec_augment=1.0)
    path = write(*(row("dog.wav", answer=f"number {n}") for n in range(6)), "{")
    dataset = Dataset(path, processor, config(augment=varied), seed=3)
    plan = batches(dataset, batch_size=2, seed=3)
    state = torch.random.get_rng_state()
    runs = []
    for workers in (0, 2):
        quarantine = Quarantine()
        runs.append((list(read(dataset, plan, quarantine, epoch=1, workers=workers)), quarantine.rows))
    assert torch.equal(state, torch.random.get_rng_state())  # a resumed run must draw what it would have drawn
    (alone, bad), (with_workers, bad_too) = runs
    assert bad == bad_too and len(bad) == 1
    for ours, theirs in zip(alone, with_workers, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert (one.ids, one.trained, one.frames, one.line) == (
                other.ids, other.trained, other.frames, other.line
            )  # fmt: skip
            assert np.array_equal(one.mels[0], other.mels[0])


def test_augmentation_varies_by_epoch_and_row_and_repeats(write, wav_file, processor):
    wav_file("dog.wav", 0.5)
    dataset = Dataset(write(row("dog.wav"), row("dog.wav")), processor, config(augment=AugmentConfig(noise=1.0)))
    first = dataset.example(0, 1).mels[0]
    assert np.array_equal(first, dataset.example(0, 1).mels[0])
    assert not np.array_equal(first, dataset.example(0, 2).mels[0])
    assert not np.array_equal(first, dataset.example(1, 1).mels[0])


# -- tensors


def test_collate_pads_what_is_short_and_labels_what_is_trained(write, wav_file, processor):
    wav_file("a.wav", 0.2)
    wav_file("b.wav", 1.0)
    dataset = Dataset(write(row("a.wav"), row("b.wav", answer="A longer answer."), row()), processor)
    examples = [dataset.example(i) for i in range(3)]
    batch = collate(examples, processor.tokenizer.pad_token_id)
    check_batch(batch, processor.audio_token_id)
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == {
        "input_ids": (3, len(examples[1].ids)), "attention_mask": (3, len(examples[1].ids)),
        "labels": (3, len(examples[1].ids)), "input_features": (2, 128, 102), "feature_attention_mask": (2, 102),
    }  # fmt: skip
    assert batch["feature_attention_mask"].sum(1).tolist() == [20, 100]
    for number, example in enumerate(examples):
        size = len(example.ids)
        assert batch["input_ids"][number, :size].tolist() == example.ids
        assert batch["attention_mask"][number].sum() == size
        labels = [i if flag else IGNORED for i, flag in zip(example.ids, example.trained, strict=True)]
        assert batch["labels"][number].tolist() == labels + [IGNORED] * (batch["labels"].shape[1] - size)
    assert "input_features" not in collate(examples[2:], 0)


def test_collate_refuses_batches_that_teach_nothing(write, processor):
    from dataclasses import replace

    example = Dataset(write(row()), processor).example(0)
    with pytest.raises(PromptError, match="Line 1 has no token to train on"):
        collate([replace(example, trained=[False] * len(example.ids))], 0)
    with pytest.raises(PromptError, match="There is no example in the batch"):
        collate([], 0)


def test_the_loss_depends_neither_on_padding_side_nor_on_neighbours(write, wav_file, processor, tiny_chat):
    wav_file("a.wav", 0.2)
    wav_file("b.wav", 1.0)
    dataset = Dataset(write(row("a.wav"), row("b.wav", answer="A longer answer, by far."), row()), processor)
    examples = [dataset.example(i) for i in range(3)]
    pad = processor.tokenizer.pad_token_id

    def losses(batch):
        with torch.no_grad():
            logits = tiny_chat.model(**batch).logits[:, :-1]
        labels = batch["labels"][:, 1:]
        loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
        return loss.sum(1)

    assert collate(examples, pad, side="left")["attention_mask"].diff().min() == 0  # zeros, then ones
    assert collate(examples, pad)["attention_mask"].diff().max() == 0
    right, left = (losses(collate(examples, pad, side=side)) for side in ("right", "left"))
    alone = torch.cat([losses(collate([example], pad)) for example in examples])
    assert torch.allclose(right, alone, rtol=1e-4)
    assert torch.allclose(left, alone, rtol=1e-4)


def test_an_example_is_what_the_model_is_used_with(write, wav_file, processor):
    """The prompt of an example equals what the short API sends for the same question."""
    from qwen2_audio.inputs import prompt

    file = wav_file("dog.wav", 1.0)
    example = Dataset(write(row("dog.wav")), processor).example(0)
    asked = [{"role": "user", "content": [{"type": "audio", "audio": str(file)}, {"type": "text", "text": "What?"}]}]
    used = prompt.build_prompt(asked, processor)
    assert example.ids[: example.trained.index(True)] == used.ids
    assert np.array_equal(example.mels[0], used.clips[0])
    assert example.frames == used.frames == [mel.num_frames(16_000)]


def test_the_length_of_a_compressed_clip_comes_from_its_header(tmp_path, clip):
    import av

    from qwen2_audio.train.clips import seconds_of

    path = tmp_path / "a.flac"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("flac", rate=16_000, layout="mono", format="s16")
        frame = av.AudioFrame.from_ndarray((clip[None] * 32767).astype("<i2"), format="s16", layout="mono")
        frame.rate = 16_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)
    assert seconds_of(path) == pytest.approx(1.0, abs=0.05)
    assert seconds_of(path.read_bytes()) == pytest.approx(1.0, abs=0.05)
    encoded = base64.b64encode(path.read_bytes()).decode()
    assert seconds_of(f"data:audio/flac;base64,{encoded}") == pytest.approx(1.0, abs=0.05)


def test_what_has_no_length_is_left_to_its_turn(write, tmp_path, processor):
    (tmp_path / "text.wav").write_text("not a sound")
    dataset = Dataset(write(row("text.wav"), row("absent.wav"), "{", row("http://localhost:9/a.wav")), processor)
    lengths = dataset.lengths().tolist()
    assert lengths[:3] == [0, 0, 0]
    assert lengths[3] > 250  # nothing was fetched: taken for ten seconds


def test_a_byte_order_mark_is_no_error(tmp_path, processor):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row()), encoding="utf-8-sig")
    assert said(Dataset(path, processor).example(0), processor) == "A dog.<|im_end|>"
    path.write_text(json.dumps([row()]), encoding="utf-8-sig")
    with pytest.raises(PromptError, match="is a JSON list"):
        Dataset(path, processor)


def test_rows_that_no_reader_expects_are_bad_rows_and_nothing_worse(tmp_path, wav_file, processor):
    """Each is one line of the report: names that are no text or no names, a WAV of no rate, a number without end."""
    silent = wav_file("rate.wav")
    whole = bytearray(silent.read_bytes())
    whole[24:28] = bytes(4)  # the sample rate
    silent.write_bytes(whole)
    path = tmp_path / "odd.jsonl"
    odd = ["x" * 300 + ".wav", "caf\udce9.wav", "file://[bad", "rate.wav"]
    lines = [json.dumps(row(audio=name)) for name in odd] + ['{"messages": ' + "9" * 5000 + "}"]
    path.write_text("\n".join([*lines, json.dumps(row())]) + "\n", encoding="utf-8")
    dataset = Dataset(path, processor)
    assert [length > 0 for length in dataset.lengths()] == [False] * 5 + [True]
    report = Quarantine(tmp_path / "report.jsonl")
    (usable,) = read(dataset, [list(range(6))], report)
    assert len(usable) == 1 and len(report) == 5
    written = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [one["line"] for one in written] == [1, 2, 3, 4, 5]
    assert "File name too long" in written[0]["reason"] and "caf\\udce9.wav" in written[1]["reason"]
