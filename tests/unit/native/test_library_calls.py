"""The library as it is loaded and called: its structs are those of this package, and a lack of memory is an error."""

import ctypes
import re

import pytest
import torch

from qwen2_audio.errors import CapacityError, ConfigError
from qwen2_audio.native import build, fused, library, structs

HUGE, WIDE = 2_000_000_000, 1 << 20  # rows and inputs of which no machine has the memory


def huge_linears(kernels, null):
    handle = structs.LinearStruct(None, None, None, WIDE, 16, 4, 64)
    pointers, strides = (ctypes.c_void_p * 1)(ctypes.addressof(handle)), (ctypes.c_int64 * 1)(16)
    kernels.qwa_linears(pointers, 1, null, HUGE, WIDE, (ctypes.c_void_p * 1)(null), strides)


def huge_attention(kernels, null):
    shape = structs.StepStruct(batch=1, queries=1, past=HUGE, heads=WIDE, kv_heads=1, head_dim=128)
    kernels.qwa_attention(ctypes.addressof(shape), ctypes.addressof(structs.KVStruct()), null, null)


def huge_layers(kernels, null):
    layer = structs.LayerStruct()
    layer.q.in_features = layer.gate.out_features = 1 << 28
    shape = structs.StepStruct(batch=1, queries=1 << 24, heads=1, kv_heads=1, head_dim=128)
    cache = structs.KVStruct()
    kernels.qwa_layers(ctypes.addressof(layer), ctypes.addressof(cache), 1, ctypes.addressof(shape), null)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("qwa_linears", huge_linears),
        ("qwa_dense", lambda kernels, null: kernels.qwa_dense(null, null, WIDE, 16, null, HUGE, null)),
        ("qwa_attention", huge_attention),
        ("qwa_layers", huge_layers),
    ],
)
@pytest.mark.parametrize("count", [1, 3])
def test_without_memory_a_call_is_refused_before_it_writes(kernels, threads, name, call, count):
    """Every address is NULL: a call that began to compute would end the process."""
    threads(count)
    library.follow_torch(kernels)
    with pytest.raises(
        CapacityError, match=f"^The native kernels got no working memory for {name}: .* Free memory, or"
    ):
        call(kernels, None)
    assert torch.equal(fused.rms_norm(torch.zeros(2, 20), torch.ones(20), 1e-6), torch.zeros(2, 20)), "it goes on"


def struct_of(fields):
    return type("Changed", (ctypes.Structure,), {"_fields_": fields})


@pytest.mark.parametrize(
    ("name", "fields", "difference"),
    [
        (
            "qwa_step",
            structs.StepStruct._fields_[:-1],
            "qwa_step is 104 bytes there and 96 bytes here",
        ),
        (
            "qwa_kv",
            [*structs.KVStruct._fields_, ("more", ctypes.c_int64)],
            "qwa_kv is 40 bytes there and 48 bytes here",
        ),
    ],
)
def test_a_library_with_another_layout_is_refused(kernels, monkeypatch, name, fields, difference):
    assert structs.layout_difference(kernels) is None
    monkeypatch.setitem(structs.STRUCTS, name, struct_of(fields))
    assert structs.layout_difference(kernels) == difference
    monkeypatch.delenv("QWEN2_AUDIO_ISA", raising=False)
    reason = f"libqwa.so does not match this package ({difference}); rebuild it or reinstall the package."
    loaded = library._load()
    assert loaded.library is None
    assert loaded.reason == f"No native kernels: {reason} Torch computes quantised layers, slowly."
    monkeypatch.setenv("QWEN2_AUDIO_ISA", "portable")
    with pytest.raises(ConfigError, match=re.escape(f"asks for 'portable', but {reason}")):
        library._load()


def test_two_fields_that_changed_places_are_seen(kernels, monkeypatch):
    first, second, *rest = structs.KVStruct._fields_
    monkeypatch.setitem(structs.STRUCTS, "qwa_kv", struct_of([second, first, *rest]))
    expected = "qwa_kv.keys is 8 bytes at byte 0 there and 8 bytes at byte 8 here"
    assert structs.layout_difference(kernels) == expected
    monkeypatch.setitem(structs.STRUCTS, "qwa_kv", struct_of([("key", ctypes.c_void_p), second, *rest]))
    assert structs.layout_difference(kernels) == "qwa_kv.keys is 8 bytes at byte 0 there and missing here"


def test_every_struct_of_the_header_is_declared(kernels):
    """`qwa_layout_entry` is the table's own."""
    header = (build.SOURCES / "qwa.h").read_text(encoding="utf-8")
    assert set(re.findall(r"^} (qwa_\w+);", header, flags=re.M)) == {*structs.STRUCTS, "qwa_layout_entry"}
