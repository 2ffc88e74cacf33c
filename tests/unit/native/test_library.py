"""Finding, choosing and building the kernels; what is said when that does not work."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen2_audio.errors import ConfigError
from qwen2_audio.native import build, library

LOADED = library.load()
needs_library = pytest.mark.skipif(LOADED.library is None, reason=LOADED.reason)
fresh_load = library._load


def test_an_unknown_instruction_set_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN2_AUDIO_ISA", "sse9")
    with pytest.raises(ConfigError, match="is 'sse9'; expected one of amx, avx512, avx2, portable, torch"):
        fresh_load()


def test_torch_leaves_the_kernels_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN2_AUDIO_ISA", "torch")
    found = fresh_load()
    assert found.library is None and found.isa == "torch"
    assert found.reason == "Native kernels are switched off by $QWEN2_AUDIO_ISA; torch computes, slowly."


@needs_library
def test_the_instruction_set_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN2_AUDIO_ISA", "portable")
    assert fresh_load().isa == "portable"
    assert LOADED.library is not None
    LOADED.library.qwa_select(LOADED.isa.encode())


@needs_library
def test_what_the_cpu_does_not_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = library._open

    def without_avx2(path: Path) -> object:
        found, reason = real(path)

        class Old:
            def qwa_supported(self, isa: bytes) -> int:
                return int(isa == b"portable")

            def __getattr__(self, name: str) -> object:
                return getattr(found, name)

        return Old(), reason

    monkeypatch.setattr(library, "_open", without_avx2)
    monkeypatch.setenv("QWEN2_AUDIO_ISA", "avx2")
    with pytest.raises(ConfigError, match="is 'avx2', which this CPU does not run; it runs portable"):
        fresh_load()


def test_without_a_library_torch_computes_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("QWEN2_AUDIO_ISA", raising=False)
    monkeypatch.setattr(library, "LIBRARY", tmp_path / "libqwa.so")
    assert fresh_load().reason == (
        "No native kernels: libqwa.so was not built (no C++ compiler at installation); install one and reinstall. "
        "Torch computes quantised layers, slowly."
    )
    (tmp_path / "libqwa.so").write_bytes(b"not a library")
    assert "libqwa.so does not load" in fresh_load().reason
    monkeypatch.setenv("QWEN2_AUDIO_ISA", "avx2")
    with pytest.raises(ConfigError, match=r"asks for 'avx2', but libqwa\.so does not load"):
        fresh_load()


def test_without_a_compiler_the_build_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    (tmp_path / "a.cpp").write_text("int f() { return 1; }")
    with pytest.raises(build.BuildError, match=r"no C\+\+ compiler was found; install g\+\+ or clang\+\+, or set CXX"):
        build.build(tmp_path, tmp_path / "a.so")


def test_a_broken_source_leaves_the_old_library(tmp_path: Path) -> None:
    if build.compiler() is None:
        pytest.skip("no C++ compiler here")
    (tmp_path / "a.cpp").write_text("int f() { return }")
    target = tmp_path / "a.so"
    target.write_text("old")
    with pytest.raises(build.BuildError, match="failed"):
        build.build(tmp_path, target)
    assert target.read_text() == "old" and len(list(tmp_path.iterdir())) == 2


def test_a_warning_is_an_error_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if build.compiler() is None:
        pytest.skip("no C++ compiler here")
    (tmp_path / "a.cpp").write_text("int f() { int unused; return 1; }")
    monkeypatch.delenv("QWEN2_AUDIO_WERROR", raising=False)
    assert build.build(tmp_path, tmp_path / "new" / "a.so").is_file()
    monkeypatch.setenv("QWEN2_AUDIO_WERROR", "1")
    with pytest.raises(build.BuildError, match="unused"):
        build.build(tmp_path, tmp_path / "a.so")
    assert not (tmp_path / "a.so").exists()


def test_sources_are_wanted(tmp_path: Path) -> None:
    with pytest.raises(build.BuildError, match=r"has no C\+\+ sources"):
        build.build(tmp_path, tmp_path / "a.so")
