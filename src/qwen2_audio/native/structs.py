"""The structs of csrc/qwa.h as ctypes declares them, and whether a library lays them out the same way."""

from __future__ import annotations

import ctypes


class LinearStruct(ctypes.Structure):
    """`qwa_linear`: the weights of one linear layer."""

    _fields_ = [
        ("codes", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("in_features", ctypes.c_int32),
        ("out_features", ctypes.c_int32),
        ("bits", ctypes.c_int32),
        ("group", ctypes.c_int32),
    ]


class KVStruct(ctypes.Structure):
    """`qwa_kv`: the KV cache of one layer."""

    _fields_ = [
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("key_scales", ctypes.c_void_p),
        ("value_scales", ctypes.c_void_p),
        ("capacity", ctypes.c_int64),
    ]


class StepStruct(ctypes.Structure):
    """`qwa_step`: what all layers of a forward pass share."""

    _fields_ = [
        ("batch", ctypes.c_int32),
        ("queries", ctypes.c_int32),
        ("past", ctypes.c_int32),
        ("heads", ctypes.c_int32),
        ("kv_heads", ctypes.c_int32),
        ("head_dim", ctypes.c_int32),
        ("kv_dtype", ctypes.c_int32),
        ("scale", ctypes.c_float),
        ("cosine", ctypes.c_void_p),
        ("sine", ctypes.c_void_p),
        ("rope_stride", ctypes.c_int64),
        ("mask", ctypes.c_void_p),
        ("tables", ctypes.c_void_p),
        ("starts", ctypes.c_void_p),
        ("num_computed", ctypes.c_void_p),
        ("table_stride", ctypes.c_int64),
        ("block", ctypes.c_int32),
    ]


class LayerStruct(ctypes.Structure):
    """`qwa_layer`: the weights of one decoder layer."""

    _fields_ = [
        *((name, LinearStruct) for name in ("q", "k", "v", "o", "gate", "up", "down")),
        ("attention_norm", ctypes.c_void_p),
        ("mlp_norm", ctypes.c_void_p),
        ("eps", ctypes.c_float),
    ]


class LayoutEntryStruct(ctypes.Structure):
    """`qwa_layout_entry`: where one field lies, or how large a struct is."""

    _fields_ = [
        ("structure", ctypes.c_char_p),
        ("field", ctypes.c_char_p),
        ("offset", ctypes.c_int64),
        ("size", ctypes.c_int64),
    ]


STRUCTS: dict[str, type[ctypes.Structure]] = {
    "qwa_linear": LinearStruct,
    "qwa_kv": KVStruct,
    "qwa_step": StepStruct,
    "qwa_layer": LayerStruct,
}

Layout = dict[str, str]  # where "struct.field" lies, or how large "struct" is


def layout_difference(library: ctypes.CDLL) -> str | None:
    """What the library lays out in another way than ctypes does, in words; None if nothing."""
    theirs, ours = _library_layout(library), _ctypes_layout()
    for name in (*theirs, *ours):
        if theirs.get(name) != ours.get(name):
            return f"{name} is {theirs.get(name, 'missing')} there and {ours.get(name, 'missing')} here"
    return None


def _library_layout(library: ctypes.CDLL) -> Layout:
    library.qwa_layout.restype = ctypes.POINTER(LayoutEntryStruct)
    entries, layout = library.qwa_layout(), {}
    index = 0
    while (entry := entries[index]).structure is not None:
        if entry.field:
            layout[f"{entry.structure.decode()}.{entry.field.decode()}"] = _place(entry.offset, entry.size)
        else:
            layout[entry.structure.decode()] = f"{entry.size} bytes"
        index += 1
    return layout


def _ctypes_layout() -> Layout:
    layout: Layout = {}
    for name, struct in STRUCTS.items():
        layout[name] = f"{ctypes.sizeof(struct)} bytes"
        for field, *_ in struct._fields_:
            descriptor = getattr(struct, field)
            layout[f"{name}.{field}"] = _place(descriptor.offset, descriptor.size)
    return layout


def _place(offset: int, size: int) -> str:
    return f"{size} bytes at byte {offset}"
