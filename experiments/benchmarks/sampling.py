"""Sampling over the bare forwards of the network, and over diffusers' own loop; the vocoder over Griffin-Lim."""

from __future__ import annotations

import torch

from bsa_lightning.data.soundscapes import Soundscapes
from bsa_lightning.diffusion.ddim import sample
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.loading import load_codec, load_parts
from bsa_lightning.models.mel import GriffinLim, LogMel
from bsa_lightning.models.mel_codec import MelCodec
from bsa_lightning.models.predictor import predictor
from bsa_lightning.models.unet import UNetDenoiser
from experiments.benchmarks.measure import Row, seconds

LENGTH = {"sample_rate": 16_000, "num_samples": 40_960}
REPEATS, NUM_STEPS, BATCH_SIZE, SCALE = 60, 8, 16, 2.0


@torch.no_grad()
def rows() -> list[Row]:
    """The same network, steps and guidance in all three."""
    from diffusers import DDIMScheduler

    teacher = load_parts("tiny")
    denoiser = teacher.denoiser.eval()
    assert isinstance(denoiser, UNetDenoiser)
    unet = denoiser.unet
    cond, null = teacher.conditioner([Soundscapes(1).captions(0)[0]] * BATCH_SIZE), teacher.conditioner.null()
    both = Conditioning.cat([cond, null.repeat(BATCH_SIZE)])
    noise = torch.randn(BATCH_SIZE, *teacher.codec.latent_shape)
    scheduler = DDIMScheduler.from_pretrained(teacher.folder / "scheduler")
    scheduler.set_timesteps(NUM_STEPS)
    states = {"encoder_hidden_states": both.tensors["states"], "encoder_attention_mask": both.masks["states"]}

    def ours() -> None:
        denoise = predictor(denoiser, cond, null=null, guidance_scale=SCALE)
        sample(denoise=denoise, schedule=denoiser.schedule, noise=noise, num_steps=NUM_STEPS)

    def bare() -> None:
        for timestep in scheduler.timesteps:
            unet(torch.cat([noise, noise]), timestep, **states)

    def diffusers_loop() -> None:
        z = noise
        for timestep in scheduler.timesteps:
            guided, free = unet(torch.cat([z, z]), timestep, **states).sample.chunk(2)
            z = scheduler.step(free + SCALE * (guided - free), timestep, z).prev_sample

    bare()
    times = [(seconds(ours), seconds(bare), seconds(diffusers_loop)) for _ in range(REPEATS)]
    log_mel = LogMel()(torch.stack([Soundscapes(BATCH_SIZE).waveform(i, **LENGTH) for i in range(BATCH_SIZE)]))
    codec, griffin_lim = load_codec("tiny"), GriffinLim()
    assert isinstance(codec, MelCodec)
    sounds = [seconds(lambda: codec.vocoder(log_mel)) / seconds(lambda: griffin_lim(log_mel)) for _ in range(REPEATS)]
    what = f"sampling, {NUM_STEPS} guided steps"
    return [
        Row(what, [a / b for a, b, _ in times], "the network's forwards alone", "1.02"),
        Row(what, [a / c for a, _, c in times], "diffusers' DDIM loop"),
        Row("the vocoder of the built-in teacher", sounds, "Griffin-Lim in 12 iterations on every second frame", "1"),
    ]
