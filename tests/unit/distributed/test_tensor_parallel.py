"""A language model divided among two processes of torchrun, on the CPU with gloo, against one: the same answers."""

import json
import queue
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import qwen2_audio as qa
from kit import shared_model_program as program
from kit import warm
from kit.tiny import tiny_config
from qwen2_audio.checkpoint import weights
from qwen2_audio.distributed.process_group import Processes
from qwen2_audio.distributed.tensor_parallel import (
    ParallelLMHead,
    RowParallelLinear,
    TensorParallelGroup,
    WeightShards,
)
from qwen2_audio.engine.executor import tp_worker
from qwen2_audio.engine.executor.forward_batch import ForwardBatch
from qwen2_audio.engine.executor.tp_worker import Command, TPDriver
from qwen2_audio.errors import CapacityError, ConfigError
from qwen2_audio.model.initialize import without_weights
from qwen2_audio.native.paged import storage_for


@pytest.fixture(scope="module")
def shared(tiny_checkpoint, tmp_path_factory):
    """What the two processes found."""
    out = tmp_path_factory.mktemp("shared") / "found"
    for done in warm.run_together([program.__file__, tiny_checkpoint, out, "model"]):
        assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(Path(f"{out}.{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone(tiny_chat):
    torch.manual_seed(0)
    return program.model_says(tiny_chat.model, tiny_chat.processor)


def test_logits_are_those_of_one_process(shared, alone):
    expected = torch.tensor(alone["logits"])
    near = 1e-5 * float(expected.abs().max())  # half a sum, and another half: rounded elsewhere
    for found in shared:
        torch.testing.assert_close(torch.tensor(found["said"]["logits"]), expected, rtol=0, atol=near)
    assert shared[0]["said"]["logits"] == shared[1]["said"]["logits"]


@pytest.mark.parametrize("way", ["greedy", "seeded", "drawn", "beams", "lookup"])
def test_generate_says_in_all_processes_what_it_says_in_one(shared, alone, way):
    assert shared[0]["said"][way] == shared[1]["said"][way] == alone[way]


def test_bfloat16_differs_by_its_own_rounding(shared, tiny_checkpoint, tiny_chat):
    exact = tiny_chat.model(torch.arange(5, 40)[None]).logits
    rounding = (torch.tensor(program.logits_in_bfloat16(tiny_checkpoint)) - exact).norm()
    for found in shared:
        assert (torch.tensor(found["bfloat16"]) - exact).norm() < 1.5 * rounding


def test_each_process_holds_its_share(shared, tiny_chat):
    text = tiny_chat.model.language_model
    norms = sum(p.nbytes for layer in text.model.layers for n, p in layer.named_parameters() if "norm" in n)
    divided = sum(p.nbytes for p in text.model.layers.parameters()) - norms + text.lm_head.weight.nbytes
    for found in shared:
        assert found["share"] == divided // 2 + norms
        assert found["cache"] == tiny_chat.model.new_cache(1, 10).nbytes // 2


def test_an_engine_over_two_processes_says_what_one_says(shared, tiny_chat):
    """Several at once, whole and in pieces, sent back for want of room, from the cache, drawn."""
    expected = program.engine_says(tiny_chat.model, tiny_chat.processor)
    found = shared[0]["engine"]
    for name, rounds in expected.items():
        for number, asked in enumerate(rounds):
            for place, (tokens, _) in enumerate(asked):
                assert found[name][number][place][0] == tokens, (name, number, place)
    assert all(cached for answered in found["whole"][1:] for _, cached in answered)
    assert "engine" not in shared[1]


def test_only_the_first_process_answers(shared):
    assert shared[0]["followed"] is False
    assert shared[1]["followed"] is True  # and came back, as the first one ended
    assert re.search(r"process 1 of 2 that share the model, .* only process 0 answers", shared[1]["error"])


def test_only_the_newest_engine_may_speak(shared):
    assert "A newer engine runs on this model" in shared[0]["old"]


def test_followers_leave_when_the_first_process_dies(tiny_checkpoint, tmp_path):
    arguments = [program.__file__, tiny_checkpoint, tmp_path / "found", "dies"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launcher += ["--monitor-interval", "5"]  # s: else torchrun may end the follower before it has said why it leaves
    done = subprocess.run([*launcher, *map(str, arguments)], capture_output=True, text=True, timeout=200)
    assert done.returncode != 0
    assert re.search(r"Process 0, which has the engine, is gone \(.*\); this one leaves", done.stderr)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantize": "int8"}, "tensor_parallel takes plain weights, neither quantised ones nor"),
        ({"dtype": "float32", "kv_cache": "int8"}, "tensor_parallel takes plain weights, neither quantised ones nor"),
        ({"adapter": "somewhere"}, "tensor_parallel takes no adapter"),
        ({"dtype": "float32"}, "started as one; start it with 'torchrun --nproc-per-node 2"),
    ],
)
def test_what_cannot_be_divided_is_refused(tiny_checkpoint, options, message):
    with pytest.raises(ConfigError, match=message):
        qa.load(tiny_checkpoint, device="cpu", tensor_parallel=True, **options)


def test_the_encoder_alone_is_refused(tiny_checkpoint):
    with pytest.raises(ConfigError, match="the encoder has none"):
        qa.Qwen2AudioEncoder.from_pretrained(tiny_checkpoint, tensor_parallel=True)


# -- what one process can show


def test_processes_that_would_load_different_models_are_stopped(tiny_checkpoint, monkeypatch):
    monkeypatch.setattr("qwen2_audio.pretrained.loading.join_tensor_parallel", lambda device: Processes(0, 2, "tensor"))
    monkeypatch.setattr(Processes, "gather", lambda self, value: [value, (torch.float16, value[1])])
    with pytest.raises(ConfigError, match=r"would not load one model: .* name a dtype"):
        qa.load(tiny_checkpoint, device="cpu", dtype="float32", tensor_parallel=True)


def tiny(vocabulary=510, **text):
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "vocab_size": vocabulary}
    audio = {"encoder_layers": 1, "encoder_ffn_dim": 16, "num_mel_bins": 128, "max_source_positions": 1500}
    return tiny_config(audio, {**sizes, **text})


@pytest.mark.parametrize(
    ("size", "text", "message"),
    [
        (4, {}, r"4 processes cannot share .*: num_key_value_heads 2 cannot be divided by 4; start 2\."),
        (3, {}, r"num_attention_heads 4 and num_key_value_heads 2 cannot be divided by 3; start 2\."),
        (2, {"intermediate_size": 25}, r"intermediate_size 25 cannot be divided by 2; start 1\."),
    ],
)
def test_a_number_of_processes_that_does_not_divide_the_heads(size, text, message):
    model = qa.Qwen2AudioForConditionalGeneration(tiny(**text))
    with pytest.raises(ConfigError, match=message):
        WeightShards.for_model(model, Processes(0, size, "tensor"))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("size", [2, 4])
def test_shares_put_together_are_the_whole(tied, size):
    """Also of a vocabulary that does not divide evenly, and of a head that is the embedding."""
    config = tiny(num_key_value_heads=4, tie_word_embeddings=tied)
    model = qa.Qwen2AudioForConditionalGeneration(config)
    before = {name: p.clone() for name, p in model.named_parameters(remove_duplicate=False)}
    joined = []
    for rank in range(size):
        part = qa.Qwen2AudioForConditionalGeneration(config)
        part.load_state_dict(before)
        shares = WeightShards.for_model(part, Processes(rank, size, "tensor"))
        for name, parameter in list(part.named_parameters()):
            owner, _, leaf = name.rpartition(".")
            setattr(part.get_submodule(owner), leaf, nn.Parameter(shares.shard(name, parameter.detach())))
        if tied:
            part.language_model.lm_head.weight = part.language_model.model.embed_tokens.weight
        shares.install(part)
        joined.append(dict(part.named_parameters(remove_duplicate=False)))
        assert not any(p.requires_grad for p in part.parameters())
    for name, full in before.items():
        axis = next((i for i, n in enumerate(joined[0][name].shape) if n != full.shape[i]), None)
        parts = [shard[name] for shard in joined]
        assert torch.equal(full, parts[0] if axis is None else torch.cat(parts, axis)), name
        leaf = name.split(".")[-2]
        if name.startswith("language_model"):
            assert (axis is not None) == (leaf.endswith("_proj") or leaf == "lm_head"), name


def test_a_tied_head_takes_no_memory():
    model = qa.Qwen2AudioForConditionalGeneration(tiny(tie_word_embeddings=True))
    shares = WeightShards.for_model(model, Processes(1, 2, "tensor"))
    shares.install(model)
    text = model.language_model
    embedding, head = text.model.embed_tokens.weight, text.lm_head.weight
    assert head.data_ptr() == embedding[255:].data_ptr()
    assert len(head) == 255


class Two(Processes):
    """Two processes that hold the same share."""

    def all_reduce(self, tensor):
        return tensor.mul_(2)

    def all_gather(self, tensor):
        return [tensor, tensor]


def test_layers_ask_the_others():
    weight, together = nn.Parameter(torch.randn(6, 4)), TensorParallelGroup(Two(0, 2, "tensor"))
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(RowParallelLinear(weight, together)(x), 2 * (x @ weight.T))
    logits = ParallelLMHead(weight, 11, together)(x)
    torch.testing.assert_close(logits, torch.cat([x @ weight.T] * 2, -1)[..., :11])
    assert ParallelLMHead(weight, 11, together)(x[:0]).shape == (0, 3, 11)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_the_share_and_one_tensor(tmp_path, monkeypatch):
    """Of a checkpoint whose tensors are read as a whole, one at a time, a half is kept."""
    with without_weights():
        empty = qa.Qwen2AudioForConditionalGeneration(
            tiny(hidden_size=512, intermediate_size=8192, num_hidden_layers=2)
        )
    save_file({n: torch.zeros(p.shape) for n, p in empty.named_parameters()}, tmp_path / "model.safetensors")
    text = empty.language_model
    divided = sum(p.nbytes for n, p in text.named_parameters() if "_proj." in n or "lm_head" in n)
    tensor = max(p.nbytes for p in text.parameters())
    shares = WeightShards.for_model(empty, Processes(1, 2, "tensor"))
    read, before, peak = weights.Checkpoint.read, private_bytes(), [0]

    def watched(self, name):
        peak[0] = max(peak[0], private_bytes() - before)
        return read(self, name)

    monkeypatch.setattr(weights.Checkpoint, "read", watched)
    weights.load_checkpoint(empty, tmp_path, share=shares.shard)
    peak[0] = max(peak[0], private_bytes() - before)
    assert divided > 100 * 10**6
    assert peak[0] < divided / 2 + 2 * tensor


def private_bytes():
    return 1024 * int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def test_max_time_is_refused(monkeypatch):
    model = qa.Qwen2AudioForConditionalGeneration(tiny())
    WeightShards.for_model(model, Processes(0, 1, "tensor")).install(model)
    with pytest.raises(ConfigError, match="max_time is set for a model that several processes share"):
        model.generate(torch.tensor([[5]]), max_time=1.0, max_new_tokens=2)


def test_a_pass_travels_as_numbers():
    packed = ForwardBatch([[4, 0, 7], [2]], [64, 0], [1, 9], [1, 0])
    assert ForwardBatch.of(packed.numbers()) == packed


class Wire(Processes):
    """Keeps what is handed on, and hands it out again where something is awaited."""

    def __init__(self):
        super().__init__(0, 2, "tensor")
        object.__setattr__(self, "sent", [])

    def broadcast(self, tensor):
        self.sent.append(tensor.clone())
        return tensor


class End(Processes):
    """One end of a line between two threads; each has the whole model."""

    def __init__(self, rank, line):
        super().__init__(rank, 1, "tensor")
        object.__setattr__(self, "line", line)

    def broadcast(self, tensor):
        if self.first:
            self.line.put(tensor.clone())
            return tensor
        return tensor.copy_(self.line.get(timeout=20))

    def all_reduce(self, tensor):
        return tensor

    def all_gather(self, tensor):
        return [tensor]


def test_a_follower_has_in_its_cache_what_the_first_process_has():
    """Passes of several sequences, blocks copied, blocks cleared."""
    line = queue.Queue()
    model, other = (qa.Qwen2AudioForConditionalGeneration(tiny()).eval() for _ in range(2))
    other.load_state_dict(model.state_dict())
    for one, rank in ((model, 0), (other, 1)):
        WeightShards.for_model(one, End(rank, line)).install(one)
    stored = storage_for(model.language_model, 8)
    made = []
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(tp_worker, "storage_for", lambda *a: made.append(storage_for(*a)) or made[-1])
        came_back = []
        follower = threading.Thread(target=lambda: came_back.append(tp_worker.run_worker(other)), daemon=True)
        follower.start()
        lead = TPDriver.of(model)
        lead.init(8)
        embeds = torch.randn(1, 44, 16)
        packed = ForwardBatch([[3, 5], [1]], [0, 0], [40, 4], [1, 0])
        with lead.running(packed, embeds):
            assert packed.run(model, stored, embeds).shape == (1, 510)
        stored.copy_block(5, 6)
        lead.copy(5, 6)
        stored.clear([3, 7])
        lead.zero([3, 7])
        tp_worker._end(model.language_model.lm_head.group)
        follower.join(20)
    assert came_back == [True]
    for mine, theirs in zip(stored.buffers, made[0].buffers, strict=True):
        assert torch.equal(mine, theirs)
        assert mine[6].any() and mine[1].any() and not mine[3].any()
    with pytest.raises(CapacityError, match="This process is ending"):
        lead.zero([1])


@pytest.mark.parametrize("count", [0, 5, tp_worker.FIRST_MESSAGE - 2, tp_worker.FIRST_MESSAGE - 1, 3000])
def test_messages_of_any_length(count):
    wire = Wire()
    tp_worker._send(wire, Command.ZERO, range(count))
    assert len(wire.sent) == (1 if count <= tp_worker.FIRST_MESSAGE - 2 else 2)
    sent = iter(wire.sent)
    object.__setattr__(wire, "broadcast", lambda tensor: tensor.copy_(next(sent)))
    assert tp_worker._receive(wire) == (Command.ZERO, list(range(count)))


def test_after_a_pass_that_failed_there_is_no_other():
    """One process may be anywhere in it: what they add up next would not belong together."""
    lead = TPDriver(TensorParallelGroup(Wire()))
    lead.init(8)
    message = r"no longer in step, since one of them failed \(no memory\); start all of"
    packed, embeds = ForwardBatch([[0]], [0], [1], [1]), torch.zeros(1, 1, 4)
    with pytest.raises(CapacityError, match=message), lead.running(packed, embeds):
        raise RuntimeError("no memory")
    with pytest.raises(CapacityError, match="no longer in step"):
        lead.copy(0, 1)
