import json

import pytest
import torch
from tiny_model import LATENT_SHAPE, NUM_SAMPLES, write_model
from tolerances import FLOAT32, SAMPLES

from bsa_lightning.common.errors import UserError
from bsa_lightning.diffusion.ddim import sample
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.loading import folder_sha256, load_denoiser, load_parts
from bsa_lightning.models.predictor import predictor
from bsa_lightning.models.registry import resolve_folder


@pytest.fixture(scope="module")
def teacher(teacher_folder):
    return load_parts(teacher_folder)


def test_shapes_and_defaults(teacher):
    assert (teacher.sampling.num_steps, teacher.sampling.scale()) == (8, 2.0)
    assert teacher.codec.latent_shape == LATENT_SHAPE
    assert teacher.codec.num_samples == NUM_SAMPLES


def test_codec_round_trip_has_the_length_and_scale_of_its_config(teacher):
    waveform = 0.1 * torch.randn(2, NUM_SAMPLES)
    posterior = teacher.codec.encode(waveform)
    raw = teacher.codec.vae.encode(teacher.codec.log_mel(waveform)[:, None]).latent_dist
    torch.testing.assert_close(posterior.mean, 0.5 * raw.mean, **FLOAT32)
    torch.testing.assert_close(posterior.std, 0.5 * raw.std, **FLOAT32)
    decoded = teacher.codec.decode(posterior.mean)
    assert decoded.shape == (2, NUM_SAMPLES)
    assert decoded.abs().max() <= 1


def test_padding_of_captions_has_no_influence(teacher, captions):
    t, z = torch.tensor([0.5]), torch.randn(1, *LATENT_SHAPE)
    alone = teacher.conditioner(captions[1:2])
    padded = teacher.conditioner(captions)[1:2]
    assert padded.tensors["states"].shape[1] > alone.tensors["states"].shape[1]
    torch.testing.assert_close(teacher.denoiser(z, t, alone).x, teacher.denoiser(z, t, padded).x, **FLOAT32)


def test_null_is_the_end_of_sequence_alone(teacher):
    assert teacher.conditioner.null().masks["states"].tolist() == [[True]]


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_plain_diffusers_reproduces_our_samples_from_a_saved_folder(teacher, captions, guidance_scale, tmp_path):
    """The published promise: `UNet2DConditionModel` and `DDIMScheduler` of the folder, in diffusers' own loop."""
    from diffusers import DDIMScheduler, UNet2DConditionModel

    teacher.denoiser.save(tmp_path)
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "unet", low_cpu_mem_usage=False)
    scheduler = DDIMScheduler.from_pretrained(tmp_path / "scheduler")
    scheduler.set_timesteps(8)
    cond, null = teacher.conditioner(captions), teacher.conditioner.null()
    both = Conditioning.cat([cond, null.repeat(3)])
    z = noise = torch.randn(3, *LATENT_SHAPE)
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            output = unet(
                torch.cat([z, z]),
                timestep,
                encoder_hidden_states=both.tensors["states"],
                encoder_attention_mask=both.masks["states"],
            ).sample
            guided, free = output.chunk(2)
            z = scheduler.step(free + guidance_scale * (guided - free), timestep, z).prev_sample
    denoise = predictor(teacher.denoiser, cond, null=null, guidance_scale=guidance_scale)
    ours = sample(denoise=denoise, schedule=teacher.denoiser.schedule, noise=noise, num_steps=8)
    torch.testing.assert_close(ours, z, **SAMPLES)


def test_unguided_prediction_evaluates_the_network_once(teacher, captions):
    sizes = []
    handle = teacher.denoiser.unet.register_forward_hook(lambda _m, args, _o: sizes.append(len(args[0])))
    cond, null = teacher.conditioner(captions), teacher.conditioner.null()
    for scale in (1.0, 2.0):
        predictor(teacher.denoiser, cond, null=null, guidance_scale=scale)(torch.randn(3, *LATENT_SHAPE), torch.ones(3))
    handle.remove()
    assert sizes == [3, 6]


def test_digest_is_of_content_not_of_place(teacher_folder, tmp_path):
    assert folder_sha256(teacher_folder) != folder_sha256(write_model(tmp_path / "other", seed=1))
    load_denoiser(teacher_folder).save(tmp_path / "same")
    load_denoiser(teacher_folder).save(tmp_path / "again")
    assert folder_sha256(tmp_path / "same") == folder_sha256(tmp_path / "again")


def test_weights_lie_where_torch_puts_them_and_not_where_a_file_header_ends(teacher_folder):
    denoiser = load_denoiser(teacher_folder)
    assert {tensor.data_ptr() % 64 for tensor in (*denoiser.parameters(), *denoiser.buffers())} == {0}


def test_student_folder_borrows_from_its_teacher(teacher_folder, tmp_path):
    load_denoiser(teacher_folder).save(tmp_path)
    provenance = {
        "pipeline": "TangoPipeline",
        "teacher": str(teacher_folder),
        "num_steps": 4,
        "guidance": "baked",
        "guidance_scale": 3.0,
    }
    (tmp_path / "provenance.json").write_text(json.dumps(provenance))
    student = load_parts(tmp_path)
    assert (student.sampling.num_steps, student.sampling.scale()) == (4, 1.0)
    assert student.sampling.scale(3.0) == 1.0
    with pytest.raises(UserError, match=r"guidance scale is 2\.0, .* 3\.0 baked in"):
        student.sampling.scale(2.0)


@pytest.mark.parametrize("missing", ["unet/config.json", "scheduler/scheduler_config.json", "vae", "text_encoder"])
def test_an_incomplete_folder_is_refused_in_a_sentence(tmp_path, missing):
    folder = write_model(tmp_path / "model")
    (folder / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"not a .*model folder"):
        load_parts(folder)


def test_an_unknown_folder_is_refused():
    with pytest.raises(UserError, match='model is "nowhere"'):
        resolve_folder("nowhere")
