import av
import pytest

from qwen2_audio.audio.formats import ALWAYS
from qwen2_audio.cli.chat_input import SOUND_SUFFIXES, ChatCommand, Turn, parse, seconds_of, unheard_files
from qwen2_audio.errors import AudioError, PromptError


@pytest.fixture(autouse=True)
def sounds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("dog.wav", "a cat.wav", "noext", "what a  dog.MOV"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("", None),
        ("   \n", None),
        ("Hello there", Turn("Hello there")),
        ("What's that?", Turn("What's that?")),
        ("dog.wav", Turn(clips=("dog.wav",))),
        ("dog.wav What's that?", Turn("What's that?", ("dog.wav",))),
        ("dog.wav dog.wav which?", Turn("which?", ("dog.wav", "dog.wav"))),
        ("a cat.wav", Turn(clips=("a cat.wav",))),
        ("'a cat.wav' purrs?", Turn("purrs?", ("a cat.wav",))),
        ('"a cat.wav" purrs?', Turn("purrs?", ("a cat.wav",))),
        (r"a\ cat.wav purrs?", Turn("purrs?", ("a cat.wav",))),
        ("a cat.wav purrs?", Turn("purrs?", ("a cat.wav",))),
        ("dog.wav a cat.wav what a  dog.MOV dog.wav?", Turn("dog.wav?", ("dog.wav", "a cat.wav", "what a  dog.MOV"))),
        ("a cat", Turn("a cat")),
        ("file:///x/a.mp3 what?", Turn("what?", ("file:///x/a.mp3",))),
        ("HTTP://x.org/a.mp3 what?", Turn("what?", ("HTTP://x.org/a.mp3",))),
        ("noext what?", Turn("what?", ("noext",))),
        ("https://x.org/a.mp3 what?", Turn("what?", ("https://x.org/a.mp3",))),
        ("/new", ChatCommand("/new")),
        ("/rec 3 ", ChatCommand("/rec", "3")),
        ("/quit", ChatCommand("/quit")),
    ],
)
def test_lines(line, wanted):
    assert parse(line) == wanted


def test_an_absolute_path_is_no_command(sounds, monkeypatch):
    assert parse(f"{sounds}/dog.wav hm?") == Turn("hm?", (f"{sounds}/dog.wav",))
    assert parse(f"{sounds}/a cat.wav hm?") == Turn("hm?", (f"{sounds}/a cat.wav",))
    monkeypatch.setenv("HOME", str(sounds))
    assert parse("~/a cat.wav hm?") == Turn("hm?", (f"{sounds}/a cat.wav",))


def test_every_suffix_of_what_the_decoder_reads_names_a_sound():
    formats = [av.format.ContainerFormat(name) for name in ALWAYS.split(",")]
    of_decoder = {f".{suffix}" for one in formats for suffix in one.extensions}
    assert of_decoder - set(SOUND_SUFFIXES) == {".avif", ".heic", ".heif", ".mks"}  # pictures, subtitles
    with pytest.raises(AudioError, match=r"No such file: 'talk\.mov'"):
        parse("talk.mov What is said?")


def test_a_clip_that_is_not_there_is_not_sent_as_text():
    with pytest.raises(AudioError, match=r"No such file: 'dgo\.wav'\. Give a path from"):
        parse("dgo.wav what is that?")
    with pytest.raises(AudioError, match=r"No such file: 'cat\.FLAC'"):
        parse("dog.wav cat.FLAC which?")


def test_an_unknown_command_suggests_the_nearest():
    with pytest.raises(PromptError, match=r"no command and no file '/quiet'\. Did you mean '/quit'\? See /help\."):
        parse("/quiet")


def test_a_file_inside_the_text_is_noticed():
    assert unheard_files(Turn("What is in (dog.wav)?", ("dog.wav",))) == ["dog.wav"]
    assert unheard_files(Turn("What is in x.wav?", ("dog.wav",))) == unheard_files(Turn(None, ("dog.wav",))) == []


def test_without_a_clip_a_file_that_is_not_there_is_noticed_too():
    assert unheard_files(parse("My Dog.mka, what is that?")) == ["Dog.mka"]
    assert unheard_files(parse("What is an .mp3, and what is nov.aux?")) == []


def test_seconds_to_record():
    assert (seconds_of(""), seconds_of("2.5")) == (5.0, 2.5)
    for argument in ("0", "31", "long", "nan"):
        with pytest.raises(PromptError, match=rf"/rec got '{argument}'; expected seconds between 0\.1 and 30"):
            seconds_of(argument)
