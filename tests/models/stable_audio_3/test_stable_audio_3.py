import json
import shutil

import pytest
import stable_audio_3_model
import torch
from safetensors.torch import load_file, save_file
from stable_audio_3_model import FRAME, LATENT_SHAPE, NUM_SAMPLES, SAMPLE_RATE, SECONDS
from tolerances import FLOAT32, LOW_PRECISION

from bsa_lightning.common.errors import UserError
from bsa_lightning.diffusion.ddim import sample
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.loading import load_codec, load_conditioner, load_denoiser, load_parts
from bsa_lightning.models.predictor import predictor
from bsa_lightning.models.registry import family_of

CAPTIONS = ["a dog barks", "rain"]


BOTH = pytest.mark.parametrize(
    "folder", [False, True], indirect=True, ids=["left padding, no start token", "right, with one"]
)


@pytest.fixture(scope="module")
def folder(request, tmp_path_factory):
    """Nobody writes to it."""
    bos = getattr(request, "param", False)
    return stable_audio_3_model.write_model(tmp_path_factory.mktemp("stable-audio-3"), bos=bos)


@pytest.fixture(scope="module")
def teacher(folder):
    return load_parts(folder)


@pytest.fixture
def copy(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


def both(teacher):
    """Unconditional rows, then conditional ones, as the pipeline has them."""
    return Conditioning.cat([teacher.conditioner.null().repeat(2), teacher.conditioner(CAPTIONS)])


def test_shapes_and_defaults(teacher, folder):
    assert teacher.codec.latent_shape == LATENT_SHAPE
    assert (teacher.codec.num_samples, teacher.codec.sample_rate, teacher.codec.num_channels) == (NUM_SAMPLES, 44100, 2)
    assert (teacher.sampling.num_steps, teacher.sampling.scale()) == (100, 1.0)
    assert family_of(folder).network == "transformer"
    assert not teacher.denoiser.takes_guidance
    assert len(teacher.denoiser.blocks()) == 2


@BOTH
@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
@pytest.mark.parametrize("num_steps", [4, 8])
def test_a_run_is_the_pipelines(teacher, folder, num_steps, guidance_scale):
    noise = torch.randn(2, *LATENT_SHAPE)
    settings = {"num_inference_steps": num_steps, "guidance_scale": guidance_scale, "output_type": "latent"}
    theirs = stable_audio_3_model.read_pipeline(folder)(CAPTIONS, duration=SECONDS, latents=noise, **settings).audios
    conditioning, null = teacher.conditioner(CAPTIONS), teacher.conditioner.null()
    denoise = predictor(teacher.denoiser, conditioning, null=null, guidance_scale=guidance_scale)
    ours = sample(denoise=denoise, schedule=teacher.denoiser.schedule, noise=noise, num_steps=num_steps)
    torch.testing.assert_close(ours, theirs, **FLOAT32)


@BOTH
def test_the_network_gets_what_the_pipeline_gives_it(teacher, folder):
    """But for the order and the content of masked tokens, which it does not see."""
    given, ours, noise = [], [], torch.randn(2, *LATENT_SHAPE)
    pipeline = stable_audio_3_model.read_pipeline(folder)
    pipeline.transformer.register_forward_pre_hook(
        lambda _m, args, named: given.append((*args, named)), with_kwargs=True
    )
    pipeline(CAPTIONS, duration=SECONDS, num_inference_steps=2, guidance_scale=2.0, latents=noise)
    handle = teacher.denoiser.network.register_forward_pre_hook(
        lambda _m, args, named: ours.append((*args, named)), with_kwargs=True
    )
    with torch.no_grad():
        teacher.denoiser(torch.cat([noise, noise]), torch.ones(4), both(teacher))
    handle.remove()
    (z_t, told, mine), (z_1, first, theirs) = ours[0], given[0]
    assert torch.equal(z_t, z_1)
    assert torch.equal(told, first)
    assert told.dtype == torch.float32
    torch.testing.assert_close(mine["global_hidden_states"], theirs["global_hidden_states"], **FLOAT32)
    for my_states, my_mask, their_states, their_mask in zip(
        mine["encoder_hidden_states"],
        mine["encoder_attention_mask"],
        theirs["encoder_hidden_states"],
        theirs["encoder_attention_mask"].bool(),
        strict=True,
    ):
        assert len(my_mask) == len(their_mask) == 257
        torch.testing.assert_close(my_states[my_mask], their_states[their_mask], **FLOAT32)


@BOTH
def test_each_clip_may_have_its_own_time_and_does_not_depend_on_the_others(teacher):
    z_t, t, conditioning = torch.randn(4, *LATENT_SHAPE), torch.tensor([0.1, 0.4, 0.7, 1.0]), both(teacher)
    with torch.no_grad():
        together = teacher.denoiser(z_t, t, conditioning).x
        alone = [teacher.denoiser(z_t[i : i + 1], t[i : i + 1], clip).x for i, clip in enumerate(conditioning.split())]
    torch.testing.assert_close(together, torch.cat(alone), **FLOAT32)
    assert (together[0] - together[2]).abs().max() > 0.01


@BOTH
def test_captions_keep_their_valid_states_alone_wherever_the_padding_is(teacher):
    conditioning = teacher.conditioner([*CAPTIONS, ""])
    marks = len(teacher.conditioner.tokenizer("")["input_ids"])
    assert [len(clip.tensors["states"][0]) for clip in conditioning.split()] == [11 + marks, 4 + marks, marks]
    assert conditioning.tensors["states"].shape[1] == 11 + marks
    assert not conditioning.tensors["states"][~conditioning.masks["states"]].any()
    null = teacher.conditioner.null()
    torch.testing.assert_close(null.tensors["duration"], conditioning.tensors["duration"][:1], **FLOAT32)


@BOTH
def test_dropout_and_padding_cope_with_a_null_without_states(teacher):
    conditioning, null = teacher.conditioner(CAPTIONS), teacher.conditioner.null()
    dropped = conditioning.where(torch.tensor([False, True]), null).padded(64)
    nothing = null.repeat(2).padded(64)
    z_t, t = torch.randn(2, *LATENT_SHAPE), torch.full((2,), 0.5)
    with torch.no_grad():
        some, none, all_ = (teacher.denoiser(z_t, t, c).x for c in (dropped, nothing, conditioning))
    torch.testing.assert_close(some, torch.stack([none[0], all_[1]]), **FLOAT32)


def test_codec_is_the_librarys_with_its_end_padded(teacher, folder):
    vae, waveform = stable_audio_3_model.read_pipeline(folder).vae, 0.3 * torch.randn(2, 2, NUM_SAMPLES)
    with torch.no_grad():
        theirs = vae.encode(waveform).latents
        decoded = vae.decode(theirs).sample
    mean, std = teacher.codec.encode(waveform)
    assert mean.shape == (2, *LATENT_SHAPE)
    torch.testing.assert_close(mean, theirs, **FLOAT32)
    assert not std.any()
    assert decoded.abs().max() > 1  # so that there is something to limit
    assert decoded.shape[-1] == LATENT_SHAPE[1] * FRAME
    torch.testing.assert_close(teacher.codec.decode(theirs), decoded[..., :NUM_SAMPLES].clamp(-1, 1), **FLOAT32)


@pytest.mark.parametrize(
    ("seconds", "num_samples", "num_frames"), [(16 / 44100, 16, 1), (16.5 / 44100, 16, 2), (0.004, 176, 12)]
)
def test_a_length_is_rounded_as_in_the_pipeline(copy, seconds, num_samples, num_frames):
    (copy / "provenance.json").write_text(json.dumps({"seconds": seconds}))
    codec, conditioner, denoiser = load_codec(copy), load_conditioner(copy), load_denoiser(copy)
    assert (codec.num_samples, codec.latent_shape) == (num_samples, (4, num_frames))
    assert conditioner.seconds == seconds
    assert denoiser.example_inputs(1)[0].shape == (1, 4, num_frames)
    assert codec.encode(torch.zeros(1, 2, num_samples)).mean.shape == (1, 4, num_frames)


def test_lengths_have_fingerprints_of_their_own_and_ten_seconds_are_the_default(copy, teacher):
    stable_audio_3_model.edit(copy, "duration_embedder/config.json", max_val=384.0)
    codec, conditioner = load_codec(copy), load_conditioner(copy)
    assert (codec.num_samples, conditioner.seconds) == (10 * SAMPLE_RATE, 10.0)
    assert codec.fingerprint != teacher.codec.fingerprint
    assert conditioner.fingerprint != teacher.conditioner.fingerprint


@pytest.mark.parametrize("seconds", [0, -1.0, 60, "ten"])
def test_a_length_that_cannot_be_is_refused(copy, seconds):
    (copy / "provenance.json").write_text(json.dumps({"seconds": seconds}))
    for load in (load_codec, load_conditioner, load_denoiser):
        with pytest.raises(UserError, match=f"seconds is {seconds} in .* must be above 0 and at most 0.005"):
            load(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stochastic_sampling": True}, "stochastic_sampling is true .* post-trained .* new noise at each step"),
        ({"num_train_timesteps": 1000}, "num_train_timesteps is 1000 in .* set it to 1"),
        ({"shift": 3.0}, "shift is 3.0 in .*"),
        ({"use_karras_sigmas": True}, "use_karras_sigmas is True in .*"),
        ({"_class_name": "DDIMScheduler"}, '_class_name is "DDIMScheduler" in .* FlowMatchEulerDiscreteScheduler'),
    ],
)
def test_another_scheduler_is_refused(copy, changes, message):
    stable_audio_3_model.edit(copy, "scheduler/scheduler_config.json", **changes)
    with pytest.raises(UserError, match=message) as found:
        load_denoiser(copy)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("vae", {"latent_dim": 6}, "has, in another shape, .* weights and configuration do not belong together"),
        ("transformer", {"depth": 3}, "lacks transformer_blocks.2"),
        ("vae", {"patch_size": 0}, "sampling_rate is 44100, patch_size is 0 and encoder_strides is"),
        ("duration_embedder", {"max_val": None}, "max_val is None in .* longest duration"),
        ("text_encoder", {"model_type": "t5"}, 'model_type is "t5" in .* only t5gemma'),
        (
            "vae",
            {"_class_name": "AutoencoderOobleck"},
            '_class_name is "AutoencoderOobleck" in .* only AutoencoderSAME',
        ),
    ],
)
def test_parts_of_something_else_are_refused(copy, part, changes, message):
    stable_audio_3_model.edit(copy, f"{part}/config.json", **changes)
    with pytest.raises(UserError, match=message):
        load_parts(copy)


@pytest.mark.parametrize(
    "missing",
    [
        "transformer/config.json",
        "scheduler/scheduler_config.json",
        "duration_embedder/config.json",
        "duration_embedder",
        "vae",
        "text_encoder",
        "tokenizer",
    ],
)
def test_an_incomplete_folder_is_refused_in_a_sentence(copy, tmp_path, missing):
    (copy / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"not a .*model folder"):
        load_parts(copy)


def test_the_codec_of_the_small_models_is_refused(copy):
    """Its decoder ends in a convolution of three frames, where diffusers builds one of a single frame."""
    path, name = copy / "vae/diffusion_pytorch_model.safetensors", "decoder.blocks.0.mapping.weight_v"
    weights = load_file(path)
    save_file({**weights, name: weights[name].repeat(1, 1, 3)}, path, {"format": "pt"})
    with pytest.raises(UserError, match=f"has, in another shape, {name}, so weights and configuration do not belong"):
        load_codec(copy)


def test_a_tokenizer_that_cuts_captions_earlier_is_refused(copy):
    stable_audio_3_model.tokenizer(padding_side="left", num_tokens=100).save_pretrained(copy / "tokenizer")
    with pytest.raises(UserError, match=r"model_max_length is 100 in .* must be at least 256"):
        load_conditioner(copy)


def test_a_network_in_half_precision_knows_exact_times_and_positions(copy):
    """Rounding them would move every frame, and all frames from 256 on."""
    single, half = load_denoiser(copy), load_denoiser(copy, dtype=torch.bfloat16)
    assert half.transformer.proj_in.weight.dtype == torch.bfloat16
    z_t, conditioning = torch.randn(2, LATENT_SHAPE[0], 700), load_conditioner(copy)(CAPTIONS)
    told, rotary = [], []
    half.network.register_forward_pre_hook(lambda _m, args: told.append(args[1]))
    for denoiser in (single, half):
        denoiser.network.rotary_pos_emb.register_forward_hook(lambda _m, _a, output: rotary.append(output))
    t = single.schedule.grid(8)[[3, 5]]
    with torch.no_grad():
        exact, rounded = single(z_t, t, conditioning), half(z_t, t, conditioning)
    assert torch.equal(told[0], single.schedule.alpha_sigma(t)[1])
    assert torch.equal(*rotary)
    assert rounded.x.dtype == torch.float32
    u = [prediction.eps - prediction.x for prediction in (exact, rounded)]
    assert (u[0] - u[1]).norm() < LOW_PRECISION * u[0].norm()


def test_checkpointing_changes_no_gradient(folder, teacher):
    z_t, t, conditioning = torch.randn(2, *LATENT_SHAPE), torch.full((2,), 0.5), both(teacher)[1:3]
    gradients = []
    for checkpointing in (False, True):
        denoiser = load_denoiser(folder).train()
        if checkpointing:
            denoiser.enable_gradient_checkpointing()
        assert denoiser.transformer.is_gradient_checkpointing is checkpointing
        denoiser(z_t, t, conditioning).x.square().mean().backward()
        gradients.append(denoiser.transformer.proj_in.weight.grad)
        # DDP waits for the gradient of each parameter that is trained.
        assert all((weight.grad is not None) == weight.requires_grad for weight in denoiser.parameters())
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(*gradients, **FLOAT32)


def test_under_autocast_the_network_is_told_exact_times(teacher):
    z_t, conditioning, told = torch.randn(2, *LATENT_SHAPE), both(teacher)[1:3], []
    t = teacher.denoiser.schedule.grid(8)[[3, 5]]
    with torch.no_grad():
        exact = teacher.denoiser(z_t, t, conditioning)
        handle = teacher.denoiser.network.register_forward_pre_hook(lambda _m, args: told.append(args[1]))
        with torch.autocast("cpu", torch.bfloat16):
            rounded = teacher.denoiser(z_t, t, conditioning)
    handle.remove()
    assert torch.equal(told[0], teacher.denoiser.schedule.alpha_sigma(t)[1])
    u = [prediction.eps - prediction.x for prediction in (exact, rounded)]
    assert 0 < (u[0] - u[1]).norm() < LOW_PRECISION * u[0].norm()
