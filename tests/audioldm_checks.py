"""What the tests of AudioLDM and AudioLDM 2 do alike."""

import json
import shutil

import torch
from audioldm_models import LATENT_SHAPE
from ladder import data_of, module_of, trainer_of
from tolerances import FLOAT32, SAMPLES
from toy_clips import ToyClips

from bsa_lightning.data.prepare import prepare_folder
from bsa_lightning.distillation.export import export_student
from bsa_lightning.distillation.guidance_modes import Baked, Embedded, Outside
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.generation.from_noise import generate
from bsa_lightning.models.loading import load_denoiser, load_parts, without_weights

MODES = {"outside": Outside(2.0), "baked": Baked(2.0), "embedded": Embedded(2.0, 1.0, 4.0)}
NUM_TIMESTEPS = 64


def recorded(pipeline, prompt, *, guidance_scale):
    """(z_t, t, the other arguments, output) of the UNet's last call while ``pipeline`` samples."""
    calls = []
    handle = pipeline.unet.register_forward_hook(
        lambda _unet, arguments, named, output: calls.append((*arguments, named, output[0])), with_kwargs=True
    )
    generator = torch.Generator().manual_seed(0)
    pipeline(prompt, num_inference_steps=3, guidance_scale=guidance_scale, generator=generator)
    handle.remove()
    z_t, timestep, named, output = calls[-1]
    return z_t, ((timestep + 1) / NUM_TIMESTEPS).expand(len(z_t)), named, output


def prepared(folder, out):
    """A store of 6 clips, encoded by the model of ``folder``."""
    prepare_folder(ToyClips(6), out, str(folder), batch_size=3, shard_size=6)
    return out


def distilled(folder, latents, run, mode):
    """The folder of the student that is left of two rounds, 8 to 4 to 2 steps."""
    module = module_of(folder, plan=Plan(8, 2, 2), guidance=MODES[mode])
    trainer_of(run).fit(module, data_of(latents, batch_size=2, num_val_clips=2))
    return run / "rounds" / "2-2steps"


def exported(student, out, *, teacher=None):
    """The student's whole folder; ``teacher`` in place of the one that it was distilled from."""
    if teacher is not None:
        student = shutil.copytree(student, out.with_name("student"))
        path = student / "provenance.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"teacher": str(teacher)}))
    export_student(student, out)
    return out


def sounds(student, captions, noise, *, guidance_scale):
    """Ours, of the student of a folder."""
    model = load_parts(student)
    return generate(
        denoiser=model.denoiser,
        codec=model.codec,
        conditioning=model.conditioner(captions),
        null=model.conditioner.null(),
        guidance_scale=guidance_scale,
        num_steps=model.sampling.num_steps,
        noise=noise,
    )


def check_same_sounds(ours, audios):
    """Sounds agree, and are not silence."""
    assert ours.std() > 0.01
    torch.testing.assert_close(ours, torch.from_numpy(audios), **SAMPLES)


def check_guidance_input(denoiser, conditioning, z_t, out):
    """It changes nothing while it is zero, something when it is not, and is read back from a saved folder."""
    t, scales = torch.full((len(z_t),), 0.5), torch.full((len(z_t),), 3.0)
    with torch.no_grad():
        plain = denoiser(z_t, t, conditioning).eps
        denoiser.add_guidance_input()
        torch.testing.assert_close(denoiser(z_t, t, conditioning, scales).eps, plain, **FLOAT32)
        torch.nn.init.normal_(denoiser.unet.time_embedding.cond_proj.weight)
        told = denoiser(z_t, t, conditioning, scales).eps
        torch.testing.assert_close(denoiser(z_t, t, conditioning).eps, plain, **FLOAT32)
        denoiser.save(out)
        again = type(denoiser).from_folder(out)
        torch.testing.assert_close(again(z_t, t, conditioning, scales).eps, told, **FLOAT32)
    assert again.takes_guidance
    assert (told - plain).abs().max() > 1e-3


def check_shapes(folder, denoiser, conditioning):
    """The network takes its example, as wide as the conditioning of captions, and is as large without weights."""
    z_t, example = denoiser.example_inputs(2)
    assert {name: tensor.shape[2:] for name, tensor in example.tensors.items()} == {
        name: tensor.shape[2:] for name, tensor in conditioning.tensors.items()
    }
    assert example.masks.keys() == conditioning.masks.keys()
    with torch.no_grad():
        assert denoiser(z_t, torch.full((2,), 0.5), example).eps.shape == (2, *LATENT_SHAPE)
    with without_weights():
        weightless = load_denoiser(folder)
    assert [weight.shape for weight in weightless.parameters()] == [weight.shape for weight in denoiser.parameters()]


def check_gradient_checkpointing(denoiser, conditioning, z_t):
    """Gradients are the same with it."""
    gradients = []
    for enable in (lambda: None, denoiser.enable_gradient_checkpointing):
        enable()
        denoiser.train().zero_grad()
        denoiser(z_t, torch.full((len(z_t),), 0.5), conditioning).eps.square().mean().backward()
        gradients.append([weight.grad.clone() for weight in denoiser.parameters() if weight.grad is not None])
    assert len(gradients[0]) == len(list(denoiser.parameters()))
    torch.testing.assert_close(gradients[1], gradients[0], **FLOAT32)
