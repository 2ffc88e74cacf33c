import pytest

from qwen2_audio.errors import ConfigError
from qwen2_audio.serve.run import Address, listening
from qwen2_audio.serve.settings import FetchPolicy, Settings


@pytest.mark.parametrize(
    "fields",
    [
        {"clips": 0},
        {"deadline": -1.0},
        {"grace": -1},
        {"api_keys": ("",)},
        {"api_keys": ("a b",)},
        {"api_keys": ("ä",)},
    ],
)
def test_settings_that_cannot_work(fields):
    with pytest.raises(ConfigError, match=r"expected|leave it out|use letters"):
        Settings(**fields)


@pytest.mark.parametrize(
    "fields",
    [{"redirects": -1}, {"seconds": 0}, {"domains": ("http://x",)}, {"domains": ("",)}, {"folder": "/no/such"}],
)
def test_policies_that_cannot_work(fields):
    with pytest.raises(ConfigError):
        FetchPolicy(**fields)


def test_names_are_compared_as_browsers_write_them():
    settings = Settings(hosts=("Audio.Example.org",), origins=("https://App.Example",))
    assert (settings.hosts, settings.origins) == (("audio.example.org",), ("https://app.example",))


def test_no_grace_is_a_choice():
    assert Settings(grace=0).grace == 0


def test_certificates_must_be_there(tmp_path):
    with pytest.raises(ConfigError, match="without its certificate"):
        Address(key=tmp_path / "key.pem")
    with pytest.raises(ConfigError, match="no file"):
        Address(certificate=tmp_path / "cert.pem")


def test_a_port_that_is_taken():
    with listening(Address(port=0)) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        assert Address().at(taken) == f"http://127.0.0.1:{port}"
        with pytest.raises(ConfigError, match=f"port {port}"):
            listening(Address(port=port))
    with pytest.raises(ConfigError, match="Cannot listen"):
        listening(Address("256.1.1.1"))
