"""Forward hooks on `audio_tower`, its parts and the projector: how people take features. Called once a pass, and what
they get is what they get in transformers."""

import torch

from kit.tiny import tiny_model
from kit.twins import batch, twins
from qwen2_audio.engine.encoder_cache import encode_in_steps


def heard_by(modules, run):
    """What forward hooks on `modules` were given in `run()`: a list of outputs for each."""
    found = [[] for _ in modules]
    handles = [
        m.register_forward_hook(lambda m, a, out, to=to: to.append(out)) for m, to in zip(modules, found, strict=True)
    ]
    with torch.no_grad():
        run()
    for handle in handles:
        handle.remove()
    return found


def parts_of(model):
    tower, projector = model.audio_tower, model.multi_modal_projector
    return [tower, tower.conv2, tower.layers[0].fc2, tower.layers[1].self_attn_layer_norm, tower.layer_norm, projector]


def test_a_pass_calls_each_once_with_the_references_values():
    theirs, ours = twins()
    inputs = batch()
    expected = heard_by(parts_of(theirs.model), lambda: theirs(**inputs))
    found = heard_by(parts_of(ours), lambda: ours(**inputs))
    for theirs_calls, calls in zip(expected, found, strict=True):
        assert len(calls) == len(theirs_calls) == 1
        value, reference = (getattr(c[0], "last_hidden_state", c[0]) for c in (calls, theirs_calls))
        torch.testing.assert_close(value, reference, atol=1e-5, rtol=1e-4)


def test_generate_calls_them_once_too():
    model = tiny_model()
    (calls,) = heard_by([model.audio_tower], lambda: model.generate(**batch(), max_new_tokens=3))
    assert [out.last_hidden_state.shape for out in calls] == [(2, 15, 16)]


def test_the_results_are_the_same_with_hooks_and_without():
    model = tiny_model(noise=0.2)
    inputs = batch()
    with torch.no_grad():
        plain = model(**inputs).logits
    for module in (model.audio_tower, model.audio_tower.conv1, model.multi_modal_projector):
        seen = []
        heard_by([module], lambda to=seen: to.append(model(**inputs).logits))
        torch.testing.assert_close(seen[0], plain, atol=1e-5, rtol=1e-5)


def test_features_that_are_cut_off_after_the_clip_are_padded_with_silence():
    """As our processor makes them; the padded frames that a hook sees are then those of a whole window of silence."""
    model = tiny_model(noise=0.2)
    mel = torch.randn(1, 8, 60)
    silence = (mel[:, :, :27].amax() - 2.0).clamp(min=-1.5)
    mel[:, :, 27:] = silence
    mask = torch.tensor([[1] * 25 + [0] * 35])
    whole, cut = (
        heard_by([model.audio_tower], lambda n=n: model.encode_audio(mel[:, :, :n], mask[:, :n]))[0][0]
        for n in (60, 27)
    )
    torch.testing.assert_close(cut.last_hidden_state, whole.last_hidden_state)


def test_the_engine_calls_them_once_for_a_clip():
    model = tiny_model(noise=0.2)
    clip = torch.randn(8, 40).numpy()

    def run():
        steps = encode_in_steps(model, [clip], [30])
        while True:
            try:
                next(steps)
            except StopIteration as done:
                return done.value

    with torch.no_grad():
        embeds, tokens = run()
    results = []
    (calls,) = heard_by([model.audio_tower], lambda: results.append(run()))
    assert len(calls) == 1
    assert results[0][1] == tokens
    torch.testing.assert_close(results[0][0], embeds, atol=1e-5, rtol=1e-5)


def test_torchs_own_hooks_do_not_count():
    """FSDP's hooks would make every clip a whole window."""
    model = tiny_model()

    def hook(module, arguments):
        return None

    hook.__module__ = "torch.distributed.fsdp"
    model.audio_tower.layers[0].register_forward_pre_hook(hook)
    called = []
    model.audio_tower.forward = lambda *a, **k: called.append(1)
    with torch.no_grad():
        model.encode_audio(batch()["input_features"], batch()["feature_attention_mask"])
    assert not called


def test_backward_hooks_are_called():
    """On the projector; torch calls none on a module that returns no tensor, as the encoder."""
    model = tiny_model(noise=0.2).train()
    grads = []
    model.multi_modal_projector.register_full_backward_hook(lambda m, before, after: grads.append(after[0].shape))
    model(**batch(), labels=batch()["input_ids"]).loss.backward()
    assert len(grads) == 1
