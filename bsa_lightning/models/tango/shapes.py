"""The configurations of Tango's networks and scheduler, partly inferred from the shapes of a checkpoint's weights."""

from __future__ import annotations

from bsa_lightning.common.errors import UserError
from bsa_lightning.models.conversion import Config, Weights, count
from bsa_lightning.models.provenance import is_number

PUBLISHED = (
    "tango",
    "tango-full",
    "tango-full-ft-audiocaps",
    "tango-full-ft-audio-music-caps",
    "tango2",
    "tango2-full",
)
"""Names of declare-lab's checkpoints on the hub."""

SCHEDULER: Config = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": True,
    "timestep_spacing": "trailing",
}
"""The scheduler of Stable Diffusion 2.1, which Tango was trained with; the hub repository that Tango names is gone."""

UNET: Config = {
    "in_channels": 8,
    "out_channels": 8,
    "sample_size": [256, 16],
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "attention_head_dim": [5, 10, 20, 20],  # the numbers of heads; diffusers keeps this name for old configurations
    "cross_attention_dim": 1024,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "use_linear_projection": True,
    "upcast_attention": True,
    "norm_num_groups": 32,
}
"""The UNet of Stable Diffusion 2.1 for latents of 8 channels, 256 frames (10.24 s) and 16 bands."""

VAE: Config = {"ch": 128, "ch_mult": [1, 2, 4], "num_res_blocks": 2, "z_channels": 8}
"""The ``ddconfig`` of AudioLDM's autoencoder, with its original names."""

VOCODER: Config = {
    "model_in_dim": 64,
    "sampling_rate": 16_000,
    "upsample_initial_channel": 1024,
    "upsample_rates": [5, 4, 2, 2, 2],
    "upsample_kernel_sizes": [16, 16, 8, 4, 4],
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5]] * 3,
    "leaky_relu_slope": 0.1,
    "normalize_before": False,
}

MEL: Config = {
    "filter_length": 1024,
    "hop_length": 160,
    "win_length": 1024,
    "n_mel_channels": 64,
    "sampling_rate": 16_000,
    "mel_fmin": 0,
    "mel_fmax": 8000,
}
"""The content of ``stft_config.json`` for the only spectrogram that ``models/mel.py`` computes."""

_CHANNELS_OF_A_HEAD = 64


def unet_config(config: Config, weights: Weights, *, vae: Weights) -> Config:
    """The arguments of ``UNet2DConditionModel``.

    Args:
        config: the configuration of the checkpoint, which takes precedence over what is inferred.
        weights: the weights of the UNet, from whose shapes other arguments are inferred; the rest are Tango's.
        vae: the weights of the autoencoder, whose number of levels gives the number of bands of a latent.

    Raises:
        UserError: if the number of attention heads is neither in the configuration nor can be inferred.
    """
    blocks = count(weights, "down_blocks.{}.resnets.0.conv2.weight")
    widths = [len(weights[f"down_blocks.{i}.resnets.0.conv2.weight"]) for i in range(blocks)]
    inferred: Config = {
        "in_channels": weights["conv_in.weight"].shape[1],
        "out_channels": len(weights["conv_out.weight"]),
        "block_out_channels": widths,
        "layers_per_block": count(weights, "down_blocks.0.resnets.{}.conv2.weight"),
        "cross_attention_dim": weights["mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"].shape[1],
    }
    if "attention_head_dim" not in config and widths != UNET["block_out_channels"]:
        if any(width % _CHANNELS_OF_A_HEAD for width in widths):
            raise UserError(
                f"the network's widths are {widths}, for which the number of attention heads cannot be told from the"
                " weights; put the diffusion_model_config.json that it was trained with into configs/ of the checkpoint"
            )
        inferred["attention_head_dim"] = [width // _CHANNELS_OF_A_HEAD for width in widths]
    own = {name: value for name, value in config.items() if not name.startswith("_")}
    bands = MEL["n_mel_channels"] // 2 ** (count(vae, "encoder.down.{}.block.0.conv1.weight") - 1)
    return UNET | inferred | own | {"sample_size": [UNET["sample_size"][0], bands]}


def vae_config(config: Config, weights: Weights) -> Config:
    """The arguments of ``AutoencoderKL``, from the ``ddconfig`` of the checkpoint and the shapes of its weights.

    Raises:
        UserError: if ``config`` does not contain a valid ``scale_factor``, which has no default.
    """
    if "scale_factor" not in config:
        raise UserError("vae_config.json has no scale_factor, and without it latents have the wrong size; restore it")
    factor = config["scale_factor"]
    if not is_number(factor, at_least=0) or factor == 0:
        raise UserError(f"scale_factor is {factor} in vae_config.json, but must be a number above 0; restore it")
    if not isinstance(config.get("ddconfig", {}), dict):
        raise UserError("ddconfig in vae_config.json is not an object; restore it")
    levels = count(weights, "encoder.down.{}.block.0.conv1.weight")
    width = len(weights["encoder.conv_in.weight"])
    inferred: Config = {
        "ch": width,
        "ch_mult": [len(weights[f"encoder.down.{i}.block.0.conv1.weight"]) // width for i in range(levels)],
        "num_res_blocks": count(weights, "encoder.down.0.block.{}.conv1.weight"),
        "z_channels": len(weights["post_quant_conv.weight"]),
    }
    dd = VAE | inferred | config.get("ddconfig", {})
    return {
        "in_channels": 1,
        "out_channels": 1,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": [dd["ch"] * factor for factor in dd["ch_mult"]],
        "layers_per_block": dd["num_res_blocks"],
        "latent_channels": dd["z_channels"],
        "scaling_factor": config["scale_factor"],
    }


def vocoder_config(weights: Weights) -> Config:
    """The arguments of ``SpeechT5HifiGanConfig``; checkpoints do not contain a configuration of the vocoder."""
    return VOCODER | {
        "model_in_dim": weights["conv_pre.weight"].shape[1],
        "upsample_initial_channel": len(weights["conv_pre.weight"]),
    }
