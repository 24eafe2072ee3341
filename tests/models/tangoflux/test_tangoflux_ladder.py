"""From prepared sound to students that diffusers samples as we do, with nothing of this package."""

import json

import pytest
import tangoflux_checkpoint
import torch
from ladder import data_of, module_of, trainer_of
from tangoflux_checkpoint import LATENT_SHAPE, NUM_SAMPLES
from tolerances import FLOAT32, SAMPLES
from toy_clips import ToyClips

from bsa_lightning.common.errors import UserError
from bsa_lightning.data.latents import LatentReader
from bsa_lightning.data.prepare import prepare_folder
from bsa_lightning.diffusion.weighting import FlowBSA
from bsa_lightning.distillation.export import export_student
from bsa_lightning.distillation.guidance_modes import Baked, Embedded, Outside
from bsa_lightning.generation.from_noise import generate
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.loading import load_parts
from bsa_lightning.models.predictor import predictor

HALF = {"rtol": 1e-3, "atol": 1e-3}
"""What float16 storage rounds away."""
CAPTIONS = ["rain", "two birds sing in the rain"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, teacher_folder):
    """Nobody writes to it, but for half of the longest duration in its provenance."""
    folder = tangoflux_checkpoint.write_model(tmp_path_factory.mktemp("tangoflux"), text_folder=teacher_folder)
    known = json.loads((folder / "provenance.json").read_text())
    (folder / "provenance.json").write_text(json.dumps(known | {"seconds": NUM_SAMPLES / 2 / 44_100}))
    (folder / "LICENSE.md").write_text("the agreement")
    return folder


@pytest.fixture(scope="module")
def teacher(folder):
    return load_parts(folder)


@pytest.fixture(scope="module")
def store(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("tangoflux-latents") / "store"
    prepare_folder(ToyClips(24), path, str(folder), batch_size=4, shard_size=24)
    return path


@torch.no_grad()
def test_a_store_gives_the_same_guided_target_as_the_text_encoder(store, teacher):
    reader, clips = LatentReader(store), ToyClips(24)
    stored = Conditioning.cat([reader[i].conditioning[0] for i in range(3)])
    direct = teacher.conditioner([clips.captions(i)[0] for i in range(3)])
    assert torch.equal(stored.masks["states"], direct.masks["states"])
    assert reader.null.tensors["states"].shape[1] == 513
    z_t, t = torch.randn(3, *LATENT_SHAPE), torch.tensor([1.0, 0.6, 0.2], dtype=torch.float64)
    found, expected = (
        predictor(teacher.denoiser, text, null=null, guidance_scale=4.5)(z_t, t)
        for text, null in ((stored, reader.null), (direct, teacher.conditioner.null()))
    )
    torch.testing.assert_close(found.x, expected.x, **HALF)


@torch.no_grad()
def test_guidance_of_a_batch_is_that_of_its_clips_alone(teacher):
    text, null = teacher.conditioner(CAPTIONS), teacher.conditioner.null()
    z_t, t = torch.randn(2, *LATENT_SHAPE), torch.tensor([0.9, 0.3], dtype=torch.float64)
    together = predictor(teacher.denoiser, text, null=null, guidance_scale=4.5)(z_t, t).x
    for i, clip in enumerate(text.split()):
        alone = predictor(teacher.denoiser, clip, null=null, guidance_scale=4.5)(z_t[i : i + 1], t[i : i + 1]).x
        torch.testing.assert_close(together[i : i + 1], alone, **SAMPLES)


@torch.no_grad()
def test_a_dropped_caption_is_the_null_beside_it(teacher):
    text, null = teacher.conditioner(CAPTIONS), teacher.conditioner.null()
    beside = teacher.denoiser.null_beside(null, text)
    dropped = text.where(torch.tensor([True, False]), beside)
    z_t, t = torch.randn(2, *LATENT_SHAPE), torch.tensor([0.9, 0.3], dtype=torch.float64)
    found = teacher.denoiser(z_t, t, dropped).x
    torch.testing.assert_close(found[0], teacher.denoiser(z_t, t, text).x[0], **FLOAT32)
    torch.testing.assert_close(found[1], teacher.denoiser(z_t, t, beside).x[1], **FLOAT32)


@pytest.fixture(scope="module")
def runs(folder, store, tmp_path_factory):
    """Two rounds of each kind of guidance."""
    found = {}
    for guidance in (Baked(2.0), Outside(2.0), Embedded(2.0, low=1.0, high=4.0)):
        found[guidance.name] = run = tmp_path_factory.mktemp(guidance.name)
        module = module_of(folder, guidance=guidance, weighting=FlowBSA())
        trainer_of(run).fit(module, data_of(store))
    return found


@pytest.fixture
def opened(runs, tmp_path, monkeypatch):
    """A function from the name of a mode to the folder of its last student and diffusers' pipeline of that folder."""
    from diffusers import DiffusionPipeline

    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))

    def open_student(mode):
        export_student(runs[mode] / "rounds" / "2-2steps", exported := tmp_path / mode)
        pipeline = DiffusionPipeline.from_pretrained(
            exported, custom_pipeline="tangoflux_pipeline", trust_remote_code=True, low_cpu_mem_usage=False
        )
        pipeline.set_progress_bar_config(disable=True)
        return exported, pipeline

    return open_student


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize(
    ("mode", "scale"),
    [("baked", None), ("outside", None), pytest.param("outside", 1.0, marks=pytest.mark.slow), ("embedded", 3.0)],
)
def test_diffusers_alone_samples_a_student_as_we_do(opened, folder, mode, scale):
    exported, pipeline = opened(mode)
    for part in (pipeline, pipeline.projection):
        assert not type(part).__module__.startswith("bsa_lightning")
    noise, model = torch.randn(2, *LATENT_SHAPE), load_parts(exported)
    assert not torch.equal(
        model.denoiser.transformer.proj_out.weight, load_parts(folder).denoiser.transformer.proj_out.weight
    )
    expected = generate(
        denoiser=model.denoiser,
        codec=model.codec,
        conditioning=model.conditioner(CAPTIONS),
        null=model.conditioner.null(),
        guidance_scale=model.sampling.scale(scale),
        num_steps=2,
        noise=noise,
    )
    theirs = pipeline(CAPTIONS, guidance_scale=scale, latents=noise, output_type="pt").audios
    assert theirs.shape == (2, 2, NUM_SAMPLES // 2)
    torch.testing.assert_close(theirs, expected, **SAMPLES)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_an_export_carries_its_licence_and_says_how_it_opens(opened):
    exported, _ = opened("baked")
    card = (exported / "README.md").read_text()
    assert "license: other" in card
    assert "non-commercial research only" in card
    assert "Powered by Stability AI" in card
    assert (
        'from_pretrained("path/to/this/folder", custom_pipeline="tangoflux_pipeline", trust_remote_code=True)' in card
    )
    assert 'pipeline("A dog barks", num_inference_steps=2, audio_length_in_s=0.00145' in card
    assert (exported / "LICENSE.md").read_text() == "the agreement"


def test_latents_of_another_family_are_refused(folder, latents_folder, tmp_path):
    with pytest.raises(UserError, match="latents"):
        trainer_of(tmp_path).fit(module_of(folder), data_of(latents_folder))
