"""Which adapters a request may name, what is read, and how many stay in memory."""

from __future__ import annotations

import json
import os
import shutil
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file

from kit.adapters import write_adapter
from kit.tiny import tiny_config, tiny_model
from qwen2_audio.engine import adapters as adapters_module
from qwen2_audio.engine.adapters import Adapters
from qwen2_audio.engine.executor.adapter_rows import of_encoder, of_language_model
from qwen2_audio.engine.metrics import Stats
from qwen2_audio.engine.request import RequestHandle
from qwen2_audio.engine.settings import EngineSettings
from qwen2_audio.errors import BusyError, ConfigError, UnknownAdapterError, WeightsError
from qwen2_audio.types import Chunk

ENCODER = {"encoder": "q_proj", "language_model": "q_proj|lm_head"}


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture
def folder(tmp_path, model):
    for seed, name in enumerate(("a", "b", "c")):
        write_adapter(tmp_path / name, model, seed, targets=ENCODER)
    (tmp_path / "notes").mkdir()
    (tmp_path / "readme.txt").write_text("not an adapter")
    return tmp_path


@pytest.fixture
def pool(model, folder):
    return Adapters(model, EngineSettings(lora_folder=folder, max_loras=2), Stats())


def handle():
    return RequestHandle(1, lambda handle: None)


def end(handle):
    handle.put(Chunk("", "stop"))


def test_names_are_those_of_folders_with_an_adapter_as_they_are_now(pool, folder, model, tmp_path_factory):
    assert pool.names() == ["a", "b", "c"]
    write_adapter(folder / "new", model, 9)
    assert pool.names() == ["a", "b", "c", "new"] and pool.load("new").name == "new"
    own = write_adapter(tmp_path_factory.mktemp("own"), model, 7)
    both = Adapters(model, EngineSettings(lora_folder=folder, lora_modules={"mine": own}), Stats())
    assert both.names() == ["a", "b", "c", "mine", "new"] and both.load("mine").key > 0
    none = Adapters(model, EngineSettings(), Stats())
    assert none.names() == []
    with pytest.raises(UnknownAdapterError, match="none that could be named"):
        none.load("a")


HOSTILE = [
    "../a", "a/../b", "./a", "..", ".", "", "a/", "/etc", "a\0", "a\\..\\b", "\ud800", "x" * 4000, "é" * 200, "A\n",
    "notes", "readme.txt", "%2e%2e%2fa",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_no_path_and_no_other_name_reaches_a_file(pool, name):
    with pytest.raises(UnknownAdapterError, match="expected one of a, b, c"):
        pool.load(name)
    assert pool._loaded == []


def test_an_absolute_path_of_an_adapter_is_no_name(pool, folder):
    with pytest.raises(UnknownAdapterError):
        pool.load(str(folder / "a"))


def test_the_least_recently_used_one_goes_first_and_one_in_use_stays(pool):
    a, b = pool.load("a"), pool.load("b")
    assert pool.load("a") is a and pool._stats.adapter_bytes == a.nbytes + b.nbytes > 0
    running = handle()
    pool.use(a, running)
    c = pool.load("c")
    assert pool._loaded == [a, c] and not pool.holds(b)
    waiting = handle()
    pool.use(c, waiting)
    with pytest.raises(BusyError, match="max_loras"):
        pool.load("b")
    with pytest.raises(BusyError):
        pool.use(b, handle())
    end(running)
    again = pool.load("b")
    assert again is not b and again.key == b.key, "its cached prompts are found again"
    assert pool._loaded == [c, again] and pool._stats.adapters_loaded == 2


def test_other_files_are_read_and_requests_on_the_old_ones_go_on(pool, folder, model):
    old = pool.load("a")
    pool.use(old, running := handle())
    write_adapter(folder / "a", model, 77, targets=ENCODER, rank=6)
    new = pool.load("a")
    assert new.key != old.key and pool.holds(old)
    end(running)
    shutil.rmtree(folder / "a")
    with pytest.raises(UnknownAdapterError):
        pool.load("a")
    assert pool._loaded == []


def damage(folder, kind):
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    settings, tensors = json.loads(config.read_text()), load_file(weights)
    first = sorted(tensors)[0]
    if kind == "cut off":
        weights.write_bytes(weights.read_bytes()[:-10])
    elif kind == "no weights":
        weights.unlink()
    elif kind == "no json":
        config.write_text("{")
    elif kind in ("use_dora", "alpha_pattern", "modules_to_save"):
        config.write_text(json.dumps({**settings, kind: {"x": 1}}))
    elif kind == "infinite alpha":
        config.write_text(json.dumps({**settings, "lora_alpha": float("inf")}))
    else:
        changed = {"nan": tensors[first] * float("nan"), "rank 0": tensors[first][:0], "integers": tensors[first].int()}
        save_file({**tensors, first: changed[kind]} if kind in changed else {}, weights)


@pytest.mark.parametrize(
    ("kind", "file"),
    [("cut off", "adapter_model"), ("no weights", "adapter_model"), ("no json", "adapter_config"),
     ("use_dora", "adapter_config"), ("alpha_pattern", "adapter_config"), ("modules_to_save", "adapter_config"),
     ("infinite alpha", "adapter_config"), ("nan", "adapter_model"), ("rank 0", "adapter_model"),
     ("integers", "adapter_model"), ("empty", "adapter_model")],
)  # fmt: skip
def test_a_broken_adapter_is_refused_with_its_file_and_without_its_place(pool, folder, kind, file):
    damage(folder / "b", kind)
    with pytest.raises(WeightsError, match=f"b/{file}") as caught:
        pool.load("b")
    assert str(folder) not in str(caught.value) and pool._loaded == []
    assert pool.load("a").name == "a"


def test_an_adapter_of_another_model_is_refused(pool, folder):
    write_adapter(
        folder / "b", tiny_model(tiny_config(text={"intermediate_size": 64})), 1, targets={"language_model": "up_proj"}
    )
    with pytest.raises(WeightsError, match="another model"):
        pool.load("b")


def test_many_threads_read_one_adapter_once(pool, monkeypatch):
    reads, read = [], adapters_module.lora.read_adapter
    monkeypatch.setattr(adapters_module.lora, "read_adapter", lambda *given: reads.append(1) or read(*given))
    found = []
    threads = [threading.Thread(target=lambda: found.append(pool.load("a"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == 1 and len(set(map(id, found))) == 1 and len(found) == 8


def test_settings_that_cannot_work(tmp_path):
    for options in ({"lora_folder": tmp_path / "gone"}, {"lora_modules": {"a": tmp_path / "gone"}},
                    {"lora_modules": {"": tmp_path}}, {"max_loras": 0}):  # fmt: skip
        with pytest.raises(ConfigError):
            EngineSettings(**options)


def test_a_model_that_processes_share_takes_none(model, tmp_path, monkeypatch):
    monkeypatch.setattr(adapters_module, "tensor_parallel_group", lambda model: object())
    with pytest.raises(ConfigError, match="several processes share"):
        Adapters(model, EngineSettings(lora_folder=tmp_path), Stats())
    Adapters(model, EngineSettings(), Stats())


def test_hooks_act_in_this_thread_and_are_gone_after_an_error(pool, model):
    a = pool.load("a")
    linear, x = model.audio_tower.layers[0].self_attn.q_proj, torch.randn(1, 5, 16)
    with torch.no_grad():
        base, elsewhere = linear(x), []

        def fail():
            other = threading.Thread(target=lambda: elsewhere.append(linear(x)))
            other.start()
            other.join()
            assert not torch.equal(linear(x), base)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError), of_encoder(model, a):
            fail()
    assert torch.equal(elsewhere[0].detach(), base) and torch.equal(linear(x), base)
    assert not any(module._forward_hooks for module in model.modules())


def test_each_row_gets_its_own_adapter(pool, model):
    a, b = pool.load("a"), pool.load("b")
    linear, head = model.language_model.model.layers[0].self_attn.q_proj, model.language_model.lm_head
    x = torch.randn(1, 6, 32)
    with torch.no_grad():
        outs = {}
        for one in (None, a, b):
            with of_language_model(model, [one], [6], [6]):
                outs[one] = linear(x), head(x[0, [1, 2, 5]])
        with of_language_model(model, [a, None, b], [2, 1, 3], [1, 1, 1]):
            mixed, logits = linear(x), head(x[0, [1, 2, 5]])
    for rows, one in (([0, 1], a), ([2], None), ([3, 4, 5], b)):
        torch.testing.assert_close(mixed[0, rows], outs[one][0][0, rows])
    for row, one in enumerate((a, None, b)):
        torch.testing.assert_close(logits[row], outs[one][1][row])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_said(pool, folder):
    (folder / "a" / "adapter_model.safetensors").chmod(0)
    with pytest.raises((WeightsError, ConfigError)):
        pool.load("a")
