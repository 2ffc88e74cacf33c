"""FSDP with micro-batches that contain no clip: encoder and projector move as they do in one process."""

import json

import pytest
import torch
from safetensors.torch import load_file

from kit import warm
from kit.clip_files import wav_bytes
from qwen2_audio.train.metrics import read

PROGRAM = """
import sys, torch
torch.set_num_threads(1)
from qwen2_audio.train import loop, sft
from qwen2_audio.train.config import TrainConfig
loop.draw = lambda output: output  # no pictures
for path in sys.argv[1:]:
    sft.run(TrainConfig.from_file(path))
"""
HEARING = ("audio_tower.", "multi_modal_projector.")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_checkpoint):
    """{(parallel, with clips): folder of the run}: eight steps of two micro-batches of a row each; of twelve rows three
    have a clip, or none."""
    folder = tmp_path_factory.mktemp("fsdp")
    configs = {}
    for clips in (3, 0):
        rows = folder / f"{clips}.jsonl"
        with rows.open("w") as file:
            for number in range(12):
                content = [{"type": "text", "text": "What is it?"}]
                if number < clips:
                    (folder / f"{number}.wav").write_bytes(wav_bytes(0.4, hertz=200.0 * (number + 1)))
                    content.insert(0, {"type": "audio", "audio": f"{number}.wav"})
                talk = [{"role": "user", "content": content}, {"role": "assistant", "content": f"thing {number}"}]
                file.write(json.dumps({"messages": talk}) + "\n")
        for parallel in ("none", "ddp", "fsdp"):
            path = folder / f"{parallel}-{clips}.toml"
            path.write_text(
                f'model = "{tiny_checkpoint}"\noutput = "{folder / path.stem}"\nsteps = 8\naccumulate = 2\n'
                f'device = "cpu"\nparallel = "{parallel}"\nmethod = "full"\n'
                f'parts = ["encoder", "projector", "language_model"]\n[data]\ntrain = "{rows}"\nbatch_size = 1\n'
                # a large epsilon: the rounding of a gradient near 0 must not decide the sign of a whole step
                "[optim]\nlearning_rate = 3e-3\nweight_decay = 0.1\nepsilon = 1e-3\n"
            )
            configs[parallel, clips] = path
    alone = warm.run(["-c", PROGRAM, *(path for (parallel, _), path in configs.items() if parallel == "none")])
    shared = [path for (parallel, _), path in configs.items() if parallel != "none"]
    for done in (alone, *warm.run_together(["-c", PROGRAM, *shared])):
        assert done.returncode == 0, done.stderr[-3000:]
    return {key: path.with_suffix("") for key, path in configs.items()}


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_it_is_one_process_within_1e_5(runs, parallel):
    one, two = (load_file(runs[kind, 3] / "final" / "model.safetensors") for kind in ("none", parallel))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5, msg=name)
    losses = [[line["loss"] for line in read(runs[kind, 3] / "metrics.jsonl")] for kind in ("none", parallel)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


@pytest.mark.parametrize("parallel", ["none", "ddp", "fsdp"])
def test_a_run_that_hears_nothing_moves_no_encoder(runs, tiny_checkpoint, parallel):
    before = load_file(tiny_checkpoint / "model.safetensors")
    after = load_file(runs[parallel, 0] / "final" / "model.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert not [name for name in moved if name.startswith(HEARING)]
