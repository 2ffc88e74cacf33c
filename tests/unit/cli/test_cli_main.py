import subprocess
import sys
import time

import pytest

from qwen2_audio.cli.main import COMMANDS

HEAVY = ("torch", "av", "soxr", "numpy", "transformers", "tokenizers", "huggingface_hub", "matplotlib", "rich", "typer")


def python(code, *arguments):
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)


def test_help_is_there_at_once_and_loads_nothing():
    code = (
        "import sys\nfrom qwen2_audio.cli.main import run\nassert run(['--help']) == 0\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = python(code)
        seconds.append(time.perf_counter() - started)
    assert done.stderr.strip() == "[]"
    assert min(seconds) < 1.0  # 0.05 s on an idle machine


def test_help_lists_every_command_in_a_line(cli):
    status, out, _ = cli("--help")
    assert status == 0
    for name, text in COMMANDS.items():
        assert f"  {name}" in out
        assert text in out
    assert cli() == cli("-h") == (0, out, "")


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help(cli, name):
    status, out, err = cli(name, "--help")
    assert (status, err) == (0, "")
    assert f"qwen2-audio {name}" in out


def test_python_dash_m_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "qwen2_audio", "--version"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert done.stdout.startswith("qwen2-audio 0.")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["aks"], "qwen2-audio: there is no command 'aks'. Did you mean 'ask'? See qwen2-audio --help.\n"),
        (["--verson"], "qwen2-audio: there is no option '--verson'. See qwen2-audio --help.\n"),
        (["ask"], "qwen2-audio: Missing argument 'audio'. See qwen2-audio ask --help.\n"),
        (["ask", "x.wav", "--top-p", "3"], "qwen2-audio: top_p is 3.0; expected a probability between 0 and 1.\n"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(cli, arguments, sentence):
    assert cli(*arguments) == (2, "", sentence)


@pytest.mark.parametrize(
    "arguments",
    [["ask", "x.wav", "--nope"], ["ask", "x.wav", "--temperature", "warm"], ["chat", "x"], ["info", "a", "b"]],
)
def test_so_is_what_the_parser_refuses(cli, arguments):
    status, out, err = cli(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("qwen2-audio: ")
    assert err.endswith(f"See qwen2-audio {arguments[0]} --help.\n")
    assert err.count("\n") == 1


def test_a_mistake_ends_the_process_with_2_and_no_traceback(tmp_path):
    done = python("from qwen2_audio.cli.main import main; main()", "ask", str(tmp_path / "nope.wav"))
    assert done.returncode == 2
    assert "No such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_fault_of_ours_is_not_hidden(cli, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr("qwen2_audio.cli.terminal.load_model", broken)
    with pytest.raises(ZeroDivisionError):
        cli("chat")


def test_ctrl_c_is_status_130(cli, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("qwen2_audio.cli.terminal.load_model", interrupted)
    assert cli("chat")[0] == 130


def test_warnings_for_programmers_are_not_for_people(cli, capsys):
    import warnings

    cli("info", "--help")  # sets the way warnings are shown
    for category in (UserWarning, ResourceWarning, DeprecationWarning):
        warnings.showwarning(f"a {category.__name__}", category, "file.py", 1)
    assert capsys.readouterr().err == "qwen2-audio: a UserWarning\n"
