"""The arguments of a RayService file, or of `serve run`, as a plan."""

from __future__ import annotations

import pytest

from qwen2_audio.errors import ConfigError
from qwen2_audio.serve.ray_plan import Plan, plan_of
from qwen2_audio.serve.settings import FetchPolicy, Settings


def test_without_arguments_one_replica_of_the_default_checkpoint():
    assert plan_of({}) == Plan({}, Settings())
    assert plan_of({}).most == 1


def test_a_file_and_a_command_line_say_the_same():
    settings = {"names": ["mine"], "clips": 4, "grace": 3.5, "fetch": {"web": False, "domains": ["a.example"]}}
    by_file = {"model": "x", "quantize": "int4", "num_speculative_tokens": 3, "replicas": 2, "max_replicas": 5,
               "cpus": 1.5, "gpus": 0.5, "settings": settings}  # fmt: skip
    by_command = {**by_file, "num_speculative_tokens": "3", "replicas": "2", "max_replicas": "5", "cpus": "1.5",
                  "gpus": "0.5", "settings": '{"names": ["mine"], "clips": 4, "grace": 3.5, '
                  '"fetch": {"web": false, "domains": ["a.example"]}}'}  # fmt: skip
    plan = plan_of(by_file)
    assert plan_of(by_command) == plan
    assert plan.load == {"name": "x", "quantize": "int4", "num_speculative_tokens": 3}
    assert (plan.replicas, plan.max_replicas, plan.most, plan.cpus, plan.gpus) == (2, 5, 5, 1.5, 0.5)
    fetch = FetchPolicy(web=False, domains=("a.example",))
    assert plan.settings == Settings(names=("mine",), clips=4, grace=3.5, fetch=fetch)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"modell": "x"}, "build() has no argument 'modell'. Did you mean 'model'?"),
        ({"tensor_parallel": True}, "build() has no argument 'tensor_parallel'"),
        ({"settings": {"clip": 3}}, "settings has no setting 'clip'. Did you mean 'clips'?"),
        ({"settings": {"fetch": {"wep": 1}}}, "settings.fetch has no setting 'wep'. Did you mean 'web'?"),
        ({"settings": 3}, "settings is int; expected a table of settings."),
        ({"settings": {"deadline": 0}}, "deadline is 0; expected a number above 0."),
        ({"replicas": 0}, "replicas is 0 and max_replicas None; expected at least one replica"),
        ({"replicas": 3, "max_replicas": 2}, "replicas is 3 and max_replicas 2"),
        ({"cpus": 0}, "cpus is 0; expected a number above 0."),
        ({"cpus": "many"}, "cpus is 'many'; expected a number."),
        ({"gpus": -1}, "gpus is -1; expected 0 or more"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_work_is_a_sentence(args, words):
    with pytest.raises(ConfigError) as error:
        plan_of(args)
    assert words in str(error.value)
