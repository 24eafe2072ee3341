"""UNets that predict a velocity: what they are told, how diffusers samples them, and that they distil as others do."""

import json
import re

import pytest
import torch
from diffusers import DiffusionPipeline
from ladder import data_of, module_of, trainer_of
from tiny_model import CAPTIONS, LATENT_SHAPE, write_model
from tolerances import FLOAT32, SAMPLES
from toy_clips import ToyClips

from bsa_lightning import TangoPipeline
from bsa_lightning.common.errors import UserError
from bsa_lightning.data.prepare import prepare_folder
from bsa_lightning.diffusion.flow import LogitNormalTimes
from bsa_lightning.diffusion.weighting import FlowBSA, VelocityMSE
from bsa_lightning.distillation.denoising import Denoising
from bsa_lightning.distillation.export import export_student
from bsa_lightning.distillation.guidance_modes import Embedded, Outside
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.generation.from_noise import generate_latents
from bsa_lightning.models.flow_unet import FlowUNetDenoiser
from bsa_lightning.models.loading import load_denoiser, load_parts

NOISE = torch.randn(3, *LATENT_SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=[1.0, 3.0], ids=["not shifted", "shifted"])
def flow_folder(request, tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("flow"), flow_shift=request.param)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A model without a shift, and a store of its latents."""
    folder = write_model(tmp_path_factory.mktemp("straight"), flow_shift=1.0)
    store = tmp_path_factory.mktemp("latents") / "store"
    prepare_folder(ToyClips(8), store, str(folder), batch_size=4)
    return folder, store


def sigma_of(folder, t):
    shift = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())["shift"]
    return shift * t / (1 + (shift - 1) * t)


def ours(folder, num_steps, scale):
    parts = load_parts(folder)
    with torch.no_grad():
        return generate_latents(
            denoiser=parts.denoiser, conditioning=parts.conditioner(CAPTIONS), null=parts.conditioner.null(),
            guidance_scale=scale, num_steps=num_steps, noise=NOISE,
        )  # fmt: skip


@torch.no_grad()
def test_the_network_is_told_a_thousand_sigma_and_gives_the_velocity(flow_folder):
    parts = load_parts(flow_folder)
    assert isinstance(parts.denoiser, FlowUNetDenoiser)
    conditioning, t = parts.conditioner(CAPTIONS), torch.tensor([0.25, 0.6, 1.0], dtype=torch.float64)
    sigma = sigma_of(flow_folder, t).float()
    x, eps = parts.denoiser(NOISE, t, conditioning)
    u = parts.denoiser.unet(
        NOISE,
        1000 * sigma,
        encoder_hidden_states=conditioning.tensors["states"],
        encoder_attention_mask=conditioning.masks["states"],
    ).sample
    torch.testing.assert_close(x, NOISE - sigma[:, None, None, None] * u, **FLOAT32)
    torch.testing.assert_close(eps - x, u, **FLOAT32)


@pytest.mark.parametrize(("num_steps", "scale"), [(1, 1.0), (4, 3.0)])
def test_the_pipeline_samples_what_we_sample(flow_folder, num_steps, scale):
    pipeline = TangoPipeline.from_pretrained(flow_folder, low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    latents = pipeline(
        CAPTIONS, latents=NOISE, num_inference_steps=num_steps, guidance_scale=scale, output_type="latent"
    ).audios
    torch.testing.assert_close(latents, ours(flow_folder, num_steps, scale), **SAMPLES)


def test_a_saved_network_is_the_same(flow_folder, tmp_path):
    denoiser = load_denoiser(flow_folder)
    denoiser.save(tmp_path)
    again = FlowUNetDenoiser.from_folder(tmp_path)
    t = torch.tensor([0.5], dtype=torch.float64)
    assert torch.equal(denoiser.timesteps(t), again.timesteps(t))
    assert torch.equal(denoiser.schedule.snr(t), again.schedule.snr(t))


@pytest.mark.parametrize("guidance", [Outside(2.0), Embedded(2.0, 1.0, 4.0)], ids=lambda mode: mode.name)
def test_two_rounds_and_an_export_that_diffusers_opens(straight, guidance, tmp_path):
    folder, store = straight
    run = tmp_path / "run"
    module = module_of(folder, plan=Plan(4, 1, 2), weighting=FlowBSA(), guidance=guidance)
    trainer_of(run).fit(module, data_of(store))
    student = run / "rounds" / "2-1steps"
    export_student(student, tmp_path / "out")
    pipeline = DiffusionPipeline.from_pretrained(
        tmp_path / "out", custom_pipeline="pipeline", trust_remote_code=True, low_cpu_mem_usage=False
    )
    pipeline.set_progress_bar_config(disable=True)
    latents = pipeline(CAPTIONS, latents=NOISE, output_type="latent").audios
    torch.testing.assert_close(latents, ours(student, 1, 2.0), **SAMPLES)


def test_a_teacher_is_trained_on_its_velocity_and_at_its_times(straight, tmp_path):
    folder, store = straight
    module = Denoising(str(folder), ema_decay=None, times=LogitNormalTimes())
    assert isinstance(module.weighting, VelocityMSE)
    trainer_of(tmp_path / "run", max_steps=2).fit(module, data_of(store))
    assert isinstance(load_denoiser(tmp_path / "run" / "model"), FlowUNetDenoiser)


def test_a_flow_that_is_said_to_predict_v_is_refused(straight, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for part in straight[0].iterdir():
        (folder / part.name).symlink_to(part)
    (folder / "scheduler").unlink()
    (folder / "scheduler").mkdir()
    config = json.loads((straight[0] / "scheduler" / "scheduler_config.json").read_text())
    (folder / "scheduler" / "scheduler_config.json").write_text(
        json.dumps(config | {"prediction_type": "v_prediction"})
    )
    with pytest.raises(UserError, match=re.escape('prediction_type is "v_prediction" in')):
        load_denoiser(folder)
