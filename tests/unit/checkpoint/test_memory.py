from pathlib import Path

import pytest

from qwen2_audio.checkpoint import memory
from qwen2_audio.errors import CapacityError


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  100 kB\nMemAvailable:    50 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", meminfo)
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.available_bytes() == 51_200
    (tmp_path / "memory.max").write_text("30000\n")
    (tmp_path / "memory.current").write_text("20000\n")
    (tmp_path / "memory.stat").write_text("anon 3\ninactive_file 5000\nactive_file 1000\n")
    assert memory.available_bytes() == 16_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_bytes() == 51_200


@pytest.mark.parametrize(
    ("number", "text"), [(12, "12 bytes"), (5_210_000, "5.21 MB"), (16_794_189_824, "16.8 GB"), (10**12, "1e+03 GB")]
)
def test_sizes_are_written_in_decimal_units(number, text):
    assert memory.format_bytes(number) == text


def test_amounts_have_no_unit_of_bytes():
    assert [memory.format_count(n) for n in (7, 8_397_094_912)] == ["7", "8.4 B"]


def test_what_has_no_room_is_refused_with_both_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 2 * 10**9)
    memory.require_memory(2 * 10**9, "It")
    with pytest.raises(CapacityError) as caught:
        memory.require_memory(3 * 10**9, "The model in int4")
    assert str(caught.value) == (
        "The model in int4 takes 3 GB of memory, and 2 GB are available; free memory, or use a larger machine."
    )
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    memory.require_memory(10**18, "Nobody knows whether it")
    memory.require_disk(1, tmp_path, "It")
    with pytest.raises(CapacityError, match=r"The file takes 1e\+09 GB, and .* has .* free; make room, or write to an"):
        memory.require_disk(10**18, tmp_path, "The file")
