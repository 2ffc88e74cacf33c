"""A config with a byte order mark is read."""

from qwen2_audio.train.config import TrainConfig


def test_a_config_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "run.toml"
    path.write_bytes(b'\xef\xbb\xbfoutput = "out"\n[data]\ntrain = "rows.jsonl"\n')
    assert TrainConfig.from_file(path).output == "out"
