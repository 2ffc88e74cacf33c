import io
import time

import numpy as np
import pytest

import qwen2_audio as qa
from kit.clip_files import tone
from qwen2_audio.api.chat import AudioChat
from qwen2_audio.engine.engine import EngineSettings
from qwen2_audio.errors import AudioError, BusyError, ConfigError, ContextLengthError, PromptError

QUESTION = "What is that sound?"
GREEDY = qa.SamplingParams(temperature=0)


def conversations():
    return [
        [qa.user(QUESTION, audio=tone(1.0))],
        [qa.user("Hello")],
        [qa.user(audio=[tone(0.5), tone(2.0, 900)])],
        [qa.system("Be brief."), qa.user("One", audio=tone(0.1)), qa.assistant("A"), qa.user(audio=tone(3.0, 200))],
    ]


@pytest.mark.parametrize("messages", conversations())
@pytest.mark.parametrize("params", [GREEDY, qa.SamplingParams(temperature=1.3, seed=4, max_tokens=12), None])
def test_streamed_is_whole(tiny_chat, messages, params):
    whole = tiny_chat.chat(messages, params)
    *pieces, last = tiny_chat.stream(messages, params)
    assert "".join(piece.text for piece in pieces) + last.text == whole.text
    assert (last.finish_reason, last.usage, last.heard) == (whole.finish_reason, whole.usage, whole.heard)
    assert all(piece.finish_reason is None and piece.usage is None for piece in pieces)


def test_batched_is_alone(tiny_chat):
    together = tiny_chat.batch(conversations(), GREEDY)
    assert together == [tiny_chat.chat(messages, GREEDY) for messages in conversations()]


def test_more_conversations_than_rows_come_back_in_their_order(tiny_chat):
    many = [[qa.user(word)] for word in "abcdefghij"]
    params = qa.SamplingParams(temperature=0, max_tokens=4)
    assert tiny_chat.batch(many, params) == [tiny_chat.chat(messages, params) for messages in many]
    assert tiny_chat.batch([]) == []


def test_a_batch_may_be_larger_than_the_engine_takes(tiny_chat):
    settings = EngineSettings(kv_tokens=4096, max_num_seqs=2, max_waiting=2)
    chat = AudioChat(tiny_chat.model, tiny_chat.processor, settings)
    words = [f"say {number}" for number in range(15)]
    params = qa.SamplingParams(temperature=0, max_tokens=2)
    assert chat.batch([[qa.user(word)] for word in words], params) == [
        tiny_chat.chat([qa.user(word)], params) for word in words
    ]


def test_a_batch_waits_for_room_that_others_have_taken(tiny_chat, monkeypatch):
    chat = AudioChat(
        tiny_chat.model, tiny_chat.processor, EngineSettings(kv_tokens=4096, max_num_seqs=1, max_waiting=1)
    )
    service, messages = chat.service(), [qa.user("Hello")]
    long = qa.SamplingParams(temperature=0, max_tokens=400, min_tokens=400)
    handles = [service.submit(messages, long) for _ in range(2)]
    assert len(chat.batch([messages] * 3, qa.SamplingParams(max_tokens=1))) == 3
    assert all(handle.done for handle in handles[:1])
    monkeypatch.setattr("qwen2_audio.engine.request.PATIENCE", 0.0)
    handles = [service.submit(messages, long) for _ in range(2)]
    with pytest.raises(BusyError, match=r"^Conversation 1: 2 requests wait or run already, as many as may"):
        chat.batch([messages], long)
    for handle in handles:
        handle.cancel()


LONG = qa.SamplingParams(temperature=0, max_tokens=1500, min_tokens=1500)


@pytest.mark.parametrize(
    ("bad", "first", "sentence"),
    [
        (qa.user(audio=np.zeros(31 * 16_000, np.float32)), qa.SamplingParams(max_tokens=1), "Clip 1 lasts 31 s"),
        ({"role": "usr", "content": "x"}, LONG, "Message 1 has the role 'usr'"),
    ],
    ids=["clip", "role"],
)
def test_a_batch_that_fails_says_where_and_leaves_nothing_behind(tiny_chat, monkeypatch, bad, first, sentence):
    service, handles = tiny_chat.service(), []
    submit = service.submit
    monkeypatch.setattr(service, "submit", lambda *asked: handles.append(submit(*asked)) or handles[-1])
    with pytest.raises((AudioError, PromptError), match=f"^Conversation 2: {sentence}"):
        tiny_chat.batch([[qa.user("Hello")], [bad], [qa.user("Hello")]], [first, LONG, LONG])
    *_, last = handles[-1]
    assert last.finish_reason == "cancelled"


def test_one_open_file_serves_a_whole_batch(tiny_chat, wav_file):
    path, params = wav_file("dog.wav", 2.0), qa.SamplingParams(temperature=0, max_tokens=2)
    alone = tiny_chat.chat([qa.user("What?", audio=path)], params)
    with path.open("rb") as file:
        for source in (file, io.BytesIO(path.read_bytes())):
            together = tiny_chat.batch([[qa.user("What?", audio=source)]] * 12, params)
            assert {(one.text, one.heard) for one in together} == {(alone.text, alone.heard)}


def test_each_conversation_of_a_batch_may_have_params_of_its_own(tiny_chat):
    each = [qa.SamplingParams(temperature=1.3, seed=seed, max_tokens=3 + seed) for seed in range(len(conversations()))]
    alone = [tiny_chat.chat(messages, params) for messages, params in zip(conversations(), each, strict=True)]
    assert tiny_chat.batch(conversations(), each) == alone
    with pytest.raises(ConfigError, match=r"batch\(\) got 2 params for 1 conversations; expected one for each"):
        tiny_chat.batch([[qa.user("Hello")]], each[:2])


@pytest.mark.parametrize("wrong", ["temperature=0", {}, {"max_tokens": 4}, 7, [None, "greedy"]], ids=str)
def test_params_of_another_type_are_refused(tiny_chat, wrong):
    expected = r"\(\) got .* as params; expected SamplingParams, as in SamplingParams\(max_tokens=64\)\.$"
    with pytest.raises(ConfigError, match="^batch" + expected):
        tiny_chat.batch([[qa.user("Hello")]] * 2, wrong)
    for ask in (tiny_chat.chat, tiny_chat.stream):
        with pytest.raises(ConfigError, match=f"^{ask.__name__}" + expected):
            ask([qa.user("Hello")], wrong)


def test_the_answer_is_that_of_the_documented_path(tiny_chat, clip):
    messages = [qa.user(QUESTION, audio=clip)]
    processor, model = tiny_chat.processor, tiny_chat.model
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    inputs = processor(text=text, audio=[clip], return_tensors="pt")
    ids = model.generate(**inputs, max_new_tokens=24, do_sample=False)[0, inputs.input_ids.size(1) :]
    assert tiny_chat.chat(messages, GREEDY).text == processor.decode(ids, skip_special_tokens=True)


def test_what_was_heard_is_told_clip_by_clip(tiny_chat):
    answer = tiny_chat.chat([qa.user("?", audio=[tone(1.0), (tone(2.0), 8000)])], GREEDY)
    assert [(h.seconds, h.tokens) for h in answer.heard] == [(1.0, 25), (4.0, 100)]
    assert answer.usage.audio_tokens == 125
    assert answer.usage.prompt_tokens > 125


def test_another_sound_another_answer(tiny_chat):
    one, other = ([qa.user(QUESTION, audio=tone(1.0, hertz))] for hertz in (200, 3000))
    assert tiny_chat.chat(one, GREEDY).text != tiny_chat.chat(other, GREEDY).text


def test_the_same_seed_the_same_answer(tiny_chat):
    def said(seed):
        return tiny_chat.chat([qa.user("Hello")], qa.SamplingParams(temperature=1.5, seed=seed)).text

    assert said(1) == said(1)
    assert len({said(seed) for seed in range(4)}) > 1


def test_max_tokens_end_an_answer(tiny_chat):
    answer = tiny_chat.chat([qa.user("Hello")], qa.SamplingParams(temperature=0, max_tokens=3))
    assert (answer.finish_reason, answer.usage.completion_tokens) == ("length", 3)


def test_stop_strings_end_an_answer_and_are_no_part_of_it(tiny_chat):
    messages = [qa.user("Hello")]
    whole = tiny_chat.chat(messages, GREEDY).text
    stop = whole[4:7]
    params = qa.SamplingParams(temperature=0, stop=stop)
    answer = tiny_chat.chat(messages, params)
    assert answer.finish_reason == "stop"
    assert answer.text == whole[: whole.index(stop)]
    assert "".join(chunk.text for chunk in tiny_chat.stream(messages, params)) == answer.text
    assert tiny_chat.batch([messages], params) == [answer]


def test_the_rest_of_the_context_is_the_limit_nobody_asked_for(tiny_chat):
    text = "a" * 2015
    positions = tiny_chat.chat([qa.user(text)], qa.SamplingParams(max_tokens=1)).usage.prompt_tokens
    available = 2048 - positions
    assert 0 < available < 24
    params = qa.SamplingParams(temperature=0, min_tokens=available)
    answer = tiny_chat.chat([qa.user(text)], params)
    assert (answer.finish_reason, answer.usage.completion_tokens) == ("context", available)
    with pytest.raises(ContextLengthError, match=rf"ask for max_tokens={available} or fewer"):
        tiny_chat.chat([qa.user(text)], qa.SamplingParams(max_tokens=100))
    # In a batch, the long conversation shortens nobody else's answer.
    both = tiny_chat.batch([[qa.user(text)], [qa.user("Hello")]], GREEDY)
    assert both[1] == tiny_chat.chat([qa.user("Hello")], GREEDY)


def test_closing_the_iterator_stops_the_model(tiny_chat, monkeypatch):
    passes = []
    step = tiny_chat.model.language_model.forward

    def slow(*args, **kwargs):
        passes.append(time.monotonic())
        time.sleep(0.02)
        return step(*args, **kwargs)

    monkeypatch.setattr(tiny_chat.model.language_model, "forward", slow)
    chunks = tiny_chat.stream([qa.user("Hello")], qa.SamplingParams(temperature=0, max_tokens=1000, min_tokens=900))
    next(chunks)
    chunks.close()
    steps = len(passes)
    assert steps < 50
    time.sleep(0.1)
    assert len(passes) == steps


def test_an_error_of_the_model_reaches_the_reader(tiny_chat, monkeypatch):
    def broken(*args, **kwargs):
        raise ZeroDivisionError("in the model")

    monkeypatch.setattr(tiny_chat.model.language_model, "forward", broken)
    with pytest.raises(ZeroDivisionError, match="in the model"):
        next(tiny_chat.stream([qa.user("Hello")]))


def test_a_stream_refuses_at_once_what_chat_refuses(tiny_chat):
    with pytest.raises(AudioError, match=r"lasts 31 s"):
        tiny_chat.stream([qa.user(audio=tone(31.0))])


def test_batch_refuses_a_single_conversation(tiny_chat):
    with pytest.raises(PromptError, match=r"batch\(\) got one conversation; expected a list of conversations"):
        tiny_chat.batch([qa.user("Hello")])


def test_the_end_of_a_turn_ends_an_answer_whatever_the_checkpoint_ends_texts_with(tiny_chat):
    end = tiny_chat.processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    params = qa.SamplingParams(temperature=0, max_tokens=8, logit_bias={end: 100}, logprobs=0)
    before, tiny_chat.model.generation_config.eos_token_id = tiny_chat.model.generation_config.eos_token_id, None
    try:
        answer = tiny_chat.chat([qa.user("Hello")], params)
    finally:
        tiny_chat.model.generation_config.eos_token_id = before
    assert (answer.finish_reason, [one.token for one in answer.logprobs]) == ("stop", [end])


def test_one_answer_a_call(tiny_chat):
    for ask in (tiny_chat.chat, tiny_chat.stream, lambda messages, params: tiny_chat.batch([messages], params)):
        with pytest.raises(qa.ConfigError, match=r"n is 2, and \w+\(\) gives one answer; ask again with another seed"):
            ask([qa.user("Hello")], qa.SamplingParams(n=2))


def test_logprobs_of_every_token(tiny_chat):
    params = qa.SamplingParams(temperature=0, max_tokens=5, logprobs=3)
    answer = tiny_chat.chat([qa.user("Hello")], params)
    assert len(answer.logprobs) == 5
    for one in answer.logprobs:
        assert one.token == one.top[0].token and one.logprob == one.top[0].logprob <= 0
        assert [other.logprob for other in one.top] == sorted((o.logprob for o in one.top), reverse=True)
    ordinary = [one for one in answer.logprobs if one.token not in tiny_chat.processor.tokenizer.all_special_ids]
    assert b"".join(one.data for one in ordinary).decode("utf-8", "replace") == answer.text


def test_penalties_and_biases_act(tiny_chat):
    messages = [qa.user("Hello")]
    plain = tiny_chat.chat(messages, qa.SamplingParams(temperature=0, max_tokens=8, logprobs=0))
    first = plain.logprobs[0].token
    banned = qa.SamplingParams(temperature=0, max_tokens=8, logprobs=0, logit_bias={first: -100})
    assert all(item.token != first for item in tiny_chat.chat(messages, banned).logprobs)
    forced = qa.SamplingParams(temperature=0, max_tokens=8, logprobs=0, logit_bias={first: 100})
    assert [item.token for item in tiny_chat.chat(messages, forced).logprobs] == [first] * 8
    again = qa.SamplingParams(
        temperature=0, max_tokens=8, logprobs=0, logit_bias={first: 100}, presence_penalty=2, frequency_penalty=2
    )
    assert [item.token for item in tiny_chat.chat(messages, again).logprobs] == [first] * 8  # 100 outweighs 4 for each


def test_a_question_is_computed_once_when_it_is_asked_twice(tiny_chat):
    messages = [qa.user(QUESTION, audio=tone(1.5, 333))]
    first, second = (tiny_chat.chat(messages, GREEDY) for _ in range(2))
    assert first == second
    assert second.usage.cached_tokens == second.usage.prompt_tokens - 1


def test_without_reuse_nothing_is_kept(tiny_chat):
    from qwen2_audio.api.chat import AudioChat
    from qwen2_audio.engine.engine import EngineSettings

    chat = AudioChat(tiny_chat.model, tiny_chat.processor, EngineSettings(kv_tokens=4096, enable_prefix_caching=False))
    messages = [qa.user(QUESTION, audio=tone(1.5, 333))]
    first, second = (chat.chat(messages, GREEDY) for _ in range(2))
    assert first == second and second.usage.cached_tokens == 0
    assert chat.service().stats().clips_encoded == 2


def test_new_weights_are_noticed(tiny_chat):
    import torch

    messages = [qa.user(QUESTION, audio=tone(1.5, 444))]
    before = tiny_chat.chat(messages, GREEDY)
    weight = tiny_chat.model.multi_modal_projector.linear.weight
    with torch.no_grad():
        weight.mul_(-3)
    try:
        other = tiny_chat.chat(messages, GREEDY)
    finally:
        with torch.no_grad():
            weight.div_(-3)
    assert other.usage.cached_tokens == 0 and other.text != before.text
    assert tiny_chat.chat(messages, GREEDY) == before


def test_the_engine_ends_with_the_chat(tiny_chat):
    import gc
    import threading

    from qwen2_audio.api.chat import AudioChat

    before = set(threading.enumerate())
    chat = AudioChat(tiny_chat.model, tiny_chat.processor)
    chat.chat([qa.user("Hello")], qa.SamplingParams(max_tokens=1))
    begun = [thread for thread in threading.enumerate() if thread not in before]
    assert "qwen2-audio-engine" in [thread.name for thread in begun]
    del chat
    gc.collect()
    assert not any(thread.is_alive() for thread in begun)
