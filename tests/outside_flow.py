"""A family of flow models as another package would write it: it imports the interfaces, and registers itself.

Its warp, its network, its text encoder and its codec are its own, and its null depends on the caption that it replaces.
"""

import json

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bsa_lightning.diffusion.flow import FlowSchedule, Warp
from bsa_lightning.diffusion.process import Velocity
from bsa_lightning.models.base import Codec, Conditioner, Denoiser, Posterior
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.family import Family
from bsa_lightning.models.registry import register_family

CHANNELS, FRAMES, SAMPLES_A_FRAME, WIDTH = 4, 8, 160, 6
LONGEST = 5


class Square(Warp):
    def __call__(self, t):
        return t**2


class OutsideDenoiser(Denoiser):
    def __init__(self, network):
        super().__init__()
        self.net, self.schedule = network, FlowSchedule(Square())

    def forward(self, z_t, t, conditioning, guidance_scale=None):
        alpha, sigma = self.schedule.alpha_sigma(t)
        mask = conditioning.masks["words"][..., None]
        words = (conditioning.tensors["words"] * mask).sum(1) / mask.sum(1)
        told = torch.cat([words, sigma[:, None].to(z_t.device)], dim=1)[:, :, None].expand(-1, -1, z_t.shape[2])
        u = self.net(torch.cat([z_t, told], dim=1))
        return Velocity().prediction(output=u, z_t=z_t, alpha=alpha, sigma=sigma)

    def null_beside(self, null, conditioning):
        lengths = conditioning.masks["words"].sum(1).tolist()
        words = null.tensors["words"]
        return Conditioning.cat(
            [Conditioning.unpadded({"words": words[:, :length]}, sequences=["words"]) for length in lengths]
        )

    @property
    def network(self):
        return self.net

    def example_inputs(self, batch_size):
        words = torch.zeros(batch_size, LONGEST, WIDTH)
        return torch.zeros(batch_size, CHANNELS, FRAMES), Conditioning.unpadded({"words": words}, sequences=["words"])

    def save(self, folder):
        (folder / "transformer").mkdir(parents=True)
        save_file(self.net.state_dict(), folder / "transformer" / "net.safetensors")
        (folder / "scheduler").mkdir()
        (folder / "scheduler" / "warp.json").write_text('{"power": 2}')


def new_network():
    return nn.Sequential(
        nn.Conv1d(CHANNELS + WIDTH + 1, 8, 3, padding=1), nn.SiLU(), nn.Conv1d(8, CHANNELS, 3, padding=1)
    )


class OutsideConditioner(Conditioner):
    fingerprint = "outside-words-1"

    def forward(self, captions):
        clips = []
        for caption in captions:
            codes = torch.tensor([sum(map(ord, word)) for word in caption.split()[:LONGEST]], dtype=torch.float32)
            words = torch.sin(codes[:, None] * torch.arange(1, WIDTH + 1))[None]
            clips.append(Conditioning.unpadded({"words": words}, sequences=["words"]))
        return Conditioning.cat(clips)

    def null(self):
        words = torch.linspace(-1, 1, LONGEST * WIDTH).reshape(1, LONGEST, WIDTH)
        return Conditioning.unpadded({"words": words}, sequences=["words"])


class OutsideCodec(Codec):
    fingerprint = "outside-sound-1"
    sample_rate, num_samples = 16_000, FRAMES * SAMPLES_A_FRAME
    latent_shape = (CHANNELS, FRAMES)

    def encode(self, waveform):
        bands = waveform.unflatten(1, (FRAMES, CHANNELS, -1)).mean(-1).transpose(1, 2)
        return Posterior(10 * bands, torch.zeros_like(bands))

    def decode(self, x):
        return (x / 10).transpose(1, 2).flatten(1).repeat_interleave(SAMPLES_A_FRAME // CHANNELS, 1).clamp(-1, 1)


class OutsideFamily(Family):
    network = "transformer"
    parts = ("words",)
    num_steps = 8
    guidance_scale = 2.0

    def denoiser(self, folder, *, dtype, weights=True):
        network = new_network().to(dtype)
        if weights:
            network.load_state_dict(load_file(folder / "transformer" / "net.safetensors"))
        return OutsideDenoiser(network)

    def conditioner(self, folder):
        return OutsideConditioner()

    def codec(self, folder):
        return OutsideCodec()

    def student_index(self, index, sampling):
        return {**index, "num_inference_steps": sampling.num_steps}


def write_outside_model(folder):
    torch.manual_seed(0)
    OutsideDenoiser(new_network()).save(folder)
    (folder / "words").mkdir()
    (folder / "words" / "config.json").write_text("{}")
    parts = {name: ["outside", name] for name in ("transformer", "scheduler", "words")}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "OutsidePipeline", **parts}))
    return folder


register_family("OutsidePipeline", OutsideFamily)
