"""Training, sampling and preparing at the sizes of Tango (866 M parameters) and TangoFlux (517 M), with random weights.

Each result is appended to the results file as soon as it is there, so that a part that runs out of time leaves what it
has measured. Without a CUDA device, everything runs on the CPU at a small size, and measures nothing that is worth
reading.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import soundfile
import torch

from bsa_lightning.data.captioned_folder import CaptionedFolder
from bsa_lightning.data.prepare import prepare_folder
from bsa_lightning.data.soundscapes import Soundscapes
from bsa_lightning.data.synthesis import SAMPLE_RATE
from bsa_lightning.diffusion.ddim import sample
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.loading import load_denoiser
from bsa_lightning.models.predictor import predictor
from bsa_lightning.models.unet import UNetDenoiser
from experiments.gpu.model_folder import CUDA, DEVICE, FULL, SMALL, Size, write_flow_model, write_model
from experiments.gpu.training import MODES, Variant, now, timed, train

TANGO, FLOW = "Tango", "TangoFlux"


def variants(size: Size) -> list[Variant]:
    """The ways to train, the most telling first: what comes late may find no time."""
    large, *others = size.batch_sizes
    first, flow = (Variant(model, "baked", large, compiled=False) for model in (TANGO, FLOW))
    compiled = [Variant(TANGO, "baked", large, compiled=True)] if CUDA else []
    modes = [Variant(TANGO, mode, batch, compiled=False) for batch in (large, *others) for mode in MODES]
    flows = [Variant(FLOW, "baked", batch, compiled=False) for batch in others]
    return list(dict.fromkeys([first, flow, *compiled, *modes, *flows]))


@torch.no_grad()
def sampling(folder: Path, num_steps: int, batch_size: int) -> dict[str, Any]:
    """Guided DDIM in bfloat16, ours and diffusers' own loop over the same network."""
    from diffusers import DDIMScheduler

    denoiser = load_denoiser(folder, dtype=torch.bfloat16).to(DEVICE).eval()
    assert isinstance(denoiser, UNetDenoiser)
    z_t, cond = denoiser.example_inputs(batch_size)
    noise, cond = torch.randn(z_t.shape).to(DEVICE), cond.to(DEVICE)
    null, unet = cond[:1], denoiser.unet
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    scheduler.set_timesteps(num_steps)
    both = Conditioning.cat([cond, null.repeat(batch_size)]).to(dtype=torch.bfloat16)
    states = {"encoder_hidden_states": both.tensors["states"], "encoder_attention_mask": both.masks["states"]}

    def ours(steps: int) -> None:
        denoise = predictor(denoiser, cond, null=null, guidance_scale=3.0)
        sample(denoise=denoise, schedule=denoiser.schedule, noise=noise, num_steps=steps)

    def theirs(steps: int) -> None:
        z = noise.bfloat16()
        for timestep in scheduler.timesteps[:steps]:
            guided, free = unet(torch.cat([z, z]), timestep, **states).sample.chunk(2)
            z = scheduler.step(free + 3.0 * (guided - free), timestep, z).prev_sample

    for function in (ours, theirs):
        function(2)
    seconds = {name: timed(lambda f=f: f(num_steps)) for name, f in (("ours", ours), ("theirs", theirs))}  # type: ignore[misc]
    return {"what": "sampling", "num_steps": num_steps, "batch_size": batch_size, **seconds}


def preparing(folder: Path, latents: Path, size: Size) -> dict[str, Any]:
    """Clips a second of ``prepare``, from two stores, so that the loading of the model cancels."""
    seconds = []
    for number in size.num_clips:
        shutil.rmtree(latents, ignore_errors=True)
        clips = Soundscapes(number, seed=7)
        began = now()
        prepare_folder(clips, latents, str(folder), batch_size=16)
        seconds.append(now() - began)
    few, many = size.num_clips
    return {"what": "preparing", "clips_a_second": (many - few) / (seconds[1] - seconds[0]), "seconds": seconds}


def recorded(folder: Path, num_clips: int) -> CaptionedFolder:
    """Soundscapes as files, which are resampled to any teacher's rate and channels."""
    folder.mkdir()
    clips = Soundscapes(num_clips, seed=7)
    for i in range(num_clips):
        sound = clips.waveform(i, sample_rate=SAMPLE_RATE, num_samples=SAMPLE_RATE, num_channels=1)
        soundfile.write(folder / f"{i}.wav", sound.T.numpy(), SAMPLE_RATE)
        (folder / f"{i}.txt").write_text(clips.captions(i)[0])
    return CaptionedFolder(folder)


def peak_flops() -> dict[str, Any]:
    """FLOPs a second of a large bfloat16 matrix product on random data, the median of ten."""
    length = 8192 if CUDA else 256
    a, b = (torch.randn(length, length, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    seconds = statistics.median(timed(lambda: a @ b) for _ in range(10))
    return {"what": "peak", "tflops": 2 * length**3 / seconds / 1e12}


def main() -> None:
    """Measures, and appends each result to the file."""
    parser = argparse.ArgumentParser(prog="full_size", description=__doc__)
    parser.add_argument("results", type=Path, help="a file of JSON lines")
    results: Path = parser.parse_args().results
    size = FULL if CUDA else SMALL
    memory = Path("/dev/shm")  # a disk would be measured, too
    with tempfile.TemporaryDirectory(dir=memory if CUDA and memory.is_dir() else None) as temporary:
        root = Path(temporary)
        models = {name: root / name for name in (TANGO, FLOW)}
        latents = {name: root / f"{name}-latents" for name in models}
        tell(results, {"what": "device", "name": torch.cuda.get_device_name() if CUDA else "a CPU"})
        tell(results, peak_flops())
        began = now()
        write_model(models[TANGO], size)
        tell(results, {"what": "writing", "seconds": now() - began})
        tell(results, preparing(models[TANGO], latents[TANGO], size))
        first, *others = variants(size)
        tell(results, train(first, models[TANGO], latents[TANGO], size.updates))
        tell(results, sampling(models[TANGO], size.steps[0], 4))
        write_flow_model(models[FLOW], size, text=models[TANGO])
        prepare_folder(recorded(root / "sounds", max(size.batch_sizes)), latents[FLOW], str(models[FLOW]), batch_size=4)
        for variant in others:
            tell(results, train(variant, models[variant.model], latents[variant.model], size.updates))
        for num_steps in size.steps[1:]:
            tell(results, sampling(models[TANGO], num_steps, 4))


def tell(results: Path, result: dict[str, Any]) -> None:
    """Appends a result to the file."""
    print(result, flush=True)
    with results.open("a") as file:
        file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
