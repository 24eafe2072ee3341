"""Step 3 of the built-in teachers: the folders that training starts from, and at last the packaged copy in float16.

Run as ``python -m experiments.builtin_teacher.assemble start MODEL``, ``... diffusion FLOW OUT`` and
``... package MODEL OUT``.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

NUM_TIMESTEPS = 1024  # a power of two, so that diffusers samples 64, 32, ..., 1 steps on exactly our grid
PROVENANCE = {
    "name": "the built-in teacher",
    "recipe": "experiments/builtin_teacher",
    "licence": "Apache-2.0",
    "num_steps": 16,
    "guidance": "outside",
    "guidance_scale": 2.0,
}

NOTICE = """\
The weights were trained on synthesised soundscapes and on recordings of ESC-10 (K. J. Piczak, "ESC: Dataset for
Environmental Sound Classification", ACM Multimedia 2015; clips from Freesound), licensed under CC BY 3.0. No recording
is part of this model.
"""


def start(folder: Path) -> None:
    """Adds an untrained UNet, the scheduler of a rectified flow and the index to the codec and text encoder."""
    import diffusers

    from bsa_lightning.models import provenance
    from bsa_lightning.models.flow_scheduler import FLOW_SCHEDULER, flow_scheduler

    torch.manual_seed(0)
    width = json.loads((folder / "text_encoder" / "config.json").read_text())["d_model"]
    channels = json.loads((folder / "vae" / "config.json").read_text())["latent_channels"]
    UNet2DConditionModel(
        sample_size=(32, 8),
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(48, 80, 96),
        layers_per_block=1,
        attention_head_dim=(2, 4, 4),  # in diffusers' old naming, the number of heads
        cross_attention_dim=width,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=16,
        use_linear_projection=True,
    ).save_pretrained(folder / "unet")
    flow_scheduler(num_train_timesteps=1000).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "TangoPipeline",
        "_diffusers_version": diffusers.__version__,
        "unet": ["diffusers", "UNet2DConditionModel"],
        "scheduler": ["diffusers", FLOW_SCHEDULER],
        "vae": ["patch_autoencoder", "PatchAutoencoder"],
        "text_encoder": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "vocoder": ["istft_vocoder", "ISTFTVocoder"],
        "num_inference_steps": PROVENANCE["num_steps"],
        "guidance": PROVENANCE["guidance"],
        "guidance_scale": PROVENANCE["guidance_scale"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    provenance.write(folder, PROVENANCE)


def diffusion(flow: Path, out: Path) -> None:
    """Copies a flow teacher with the scheduler of a diffusion model, for which its network has yet to be trained."""
    from diffusers import DDIMScheduler

    from bsa_lightning.models import provenance

    shutil.copytree(flow, out, ignore=shutil.ignore_patterns("scheduler"))
    DDIMScheduler(
        num_train_timesteps=NUM_TIMESTEPS,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.025,  # at 0.012 the noisiest z_t tells how loud a clip is; see the log
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    ).save_pretrained(out / "scheduler")
    index = json.loads((out / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "DDIMScheduler"]
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    provenance.write(out, PROVENANCE)


def package(folder: Path, out: Path) -> None:
    """Copies a model folder with its UNet in float16; the other parts are in float16 already."""
    from bsa_lightning.models import provenance

    shutil.copytree(folder, out, ignore=shutil.ignore_patterns("unet", "*.py"))
    network = UNet2DConditionModel.from_pretrained(folder / "unet").half()
    network.register_to_config(_name_or_path="")  # else the folder that it was read from
    network.save_pretrained(out / "unet")
    index = json.loads((out / "model_index.json").read_text())
    name = "the built-in flow teacher" if "Flow" in index["scheduler"][1] else PROVENANCE["name"]
    provenance.write(out, {**PROVENANCE, "name": name})
    (out / "NOTICE").write_text(NOTICE)


if __name__ == "__main__":
    command, *paths = sys.argv[1:]
    commands: dict[str, Callable[..., None]] = {"start": start, "diffusion": diffusion, "package": package}
    commands[command](*map(Path, paths))
