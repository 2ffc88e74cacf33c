import pytest

from qwen2_audio.errors import ConfigError
from qwen2_audio.train.config import TrainConfig

LEAST = 'output = "out"\n[data]\ntrain = "rows.jsonl"\n'


@pytest.fixture
def read(tmp_path):
    def from_text(text) -> TrainConfig:
        path = tmp_path / "run.toml"
        path.write_text(text)
        return TrainConfig.from_file(path)

    return from_text


def test_two_keys_are_enough(read):
    config = read(LEAST)
    assert (config.model, config.method, config.parts, config.epochs) == ("nano", "lora", ("language_model",), 1.0)
    assert config.data.batch_size == 4


def test_every_kind_of_value_is_read(read):
    config = read(
        'output = "out"\nparts = ["encoder", "projector"]\nsteps = 5\n[data]\ntrain = "a"\nbatch_tokens = 100\n'
        "[data.augment]\nspeed = [0.9, 1.1]\n[optim]\nlearning_rate = 1\n[dpo]\nlength_normalised = true\n"
    )
    assert config.parts == ("encoder", "projector")
    assert (config.data.batch_size, config.data.batch_tokens) == (0, 100)
    assert config.data.augment.speed == (0.9, 1.1)
    assert config.optim.learning_rate == 1.0
    assert config.dpo.length_normalised is True
    assert (config.steps, config.epochs) == (5, 0.0)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("stepz = 3\n" + LEAST, "there is no key 'stepz'. Did you mean 'steps'?"),
        (LEAST + "[optim]\nlearning_rat = 1\n", "there is no key 'optim.learning_rat'. Did you mean 'learning_rate'?"),
        (LEAST + "[data.augment]\nsped = 1\n", "there is no key 'data.augment.sped'. Did you mean 'speed'?"),
        ('output = "out"\n', "'data' is missing; every run needs it."),
        ('output = "out"\n[data]\n', "'data.train' is missing; every run needs it."),
        ('method = "lroa"\n' + LEAST, "method is 'lroa'; expected one of 'lora', 'full'. Did you mean 'lora'?"),
        ('parts = ["decoder"]\n' + LEAST, "parts is 'decoder'; expected one of 'encoder', 'projector'"),
        ("parts = []\n" + LEAST, "parts is empty, so nothing would be trained"),
        ("parts = 1\n" + LEAST, "parts is 1; expected a list."),
        ("steps = -1\n" + LEAST, "steps is -1; expected 0 or more."),
        ("steps = true\n" + LEAST, "steps is True; expected a whole number."),
        ("steps = 1.5\n" + LEAST, "steps is 1.5; expected a whole number."),
        ("steps = 2\nepochs = 1\n" + LEAST, "steps and epochs are two ways to say one thing; give one."),
        ("accumulate = 0\n" + LEAST, "accumulate is 0; expected 1 or more."),
        ("model = 3\n" + LEAST, "model is 3; expected a string."),
        ("lora = 3\n" + LEAST, "lora is 3; expected a table, [lora]."),
        (LEAST + "batch_size = 2\nbatch_tokens = 2\n", "data.batch_size and data.batch_tokens are two ways"),
        (LEAST + "[optim]\nlearning_rate = 0\n", "optim.learning_rate is 0.0; expected more than 0."),
        (LEAST + "[optim]\nbetas = [0.9]\n", "optim.betas has 1 values; expected 2."),
        (
            LEAST + "[optim]\nbetas = [0.9, 1.0]\n",
            "optim.betas are [0.9, 1.0]; expected two numbers of 0 or more, below 1.",
        ),
        (LEAST + "[lora]\nrank = 0\n", "lora.rank is 0; expected 1 or more."),
        (LEAST + "[lora]\ndropout = 1.0\n", "lora.dropout is 1.0; expected 0 or more, below 1."),
        (LEAST + "[optim]\nfinal_fraction = 2\n", "optim.final_fraction is 2.0; expected 0 to 1."),
        (LEAST + "[dpo]\nbeta = 0\n", "dpo.beta is 0.0; expected more than 0."),
        ('quantize = "int5"\n' + LEAST, "quantize is 'int5'; expected one of '', 'int8', 'int4'. Did you mean 'int8'?"),
        (
            'parallel = "fdsp"\n' + LEAST,
            "parallel is 'fdsp'; expected one of 'none', 'ddp', 'fsdp'. Did you mean 'fsdp'?",
        ),
        ("tensorboard = true\n" + LEAST, "tensorboard is True; expected one of 'auto', 'on', 'off'."),
        ("gradient_checkpointing = 1\n" + LEAST, "gradient_checkpointing is 1; expected true or false."),
        (
            LEAST + '[optim]\nkind = "adam8bit"\n',
            "optim.kind is 'adam8bit'; expected one of 'adamw', 'adamw8bit', 'muon'.",
        ),
        ("output = \n", "is not TOML: "),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(read, text, sentence):
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert sentence in str(caught.value)
    assert "run.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"Cannot read .*nope.toml: No such file or directory."):
        TrainConfig.from_file(tmp_path / "nope.toml")


def test_an_old_name_is_read_with_a_notice(read):
    with pytest.warns(UserWarning, match=r"^data\.augment\.throat is now data\.augment\.vtlp; the old name goes in"):
        config = read(LEAST + "[data.augment]\nthroat = [0.9, 1.1]\n")
    assert config.data.augment.vtlp == (0.9, 1.1)
    with pytest.raises(ConfigError, match=r"run\.toml: data\.augment\.throat is the old name of data\.aug"):
        read(LEAST + "[data.augment]\nthroat = [0.9, 1.1]\nvtlp = [0.9, 1.1]\n")
