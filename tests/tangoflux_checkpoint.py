"""A checkpoint in TangoFlux's original layout with random weights, other widths and an inverse key map."""

import json
import shutil
import warnings

import torch
from safetensors.torch import load_file, save_file

LATENT_SHAPE = (4, 16)
NUM_SAMPLES = LATENT_SHAPE[1] * 8
WIDTH = 16
"""That of the text encoder of ``tiny_model``."""
CONFIG = {
    "num_layers": 1,
    "num_single_layers": 1,
    "in_channels": LATENT_SHAPE[0],
    "attention_head_dim": 128,
    "joint_attention_dim": WIDTH,
    "num_attention_heads": 1,
    "audio_seq_len": LATENT_SHAPE[1],
    "max_duration": 0.003,
    "uncondition": False,
    "text_encoder_name": "words",
}


def networks(seed):
    """Transformer, codec and caption projection, every weight random."""
    from diffusers import AutoencoderOobleck, FluxTransformer2DModel

    from bsa_lightning.models.tangoflux.caption_projection import CaptionProjection

    torch.manual_seed(seed)
    transformer = FluxTransformer2DModel(
        in_channels=LATENT_SHAPE[0],
        num_layers=1,
        num_single_layers=1,
        num_attention_heads=1,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*weight_norm", category=FutureWarning)
        vae = AutoencoderOobleck(
            encoder_hidden_size=2 * LATENT_SHAPE[0],
            downsampling_ratios=[2, 4],
            channel_multiples=[1, 2],
            decoder_channels=6,
            decoder_input_channels=LATENT_SHAPE[0],
        )
    projection = CaptionProjection(WIDTH, CONFIG["max_duration"], num_frequencies=5)
    for network in (transformer, vae, projection):
        network.eval()
        for parameter in network.parameters():  # biases and frequencies too, which start as zeros
            parameter.data += 0.1 * torch.randn_like(parameter)
    return transformer, vae, projection


def write_checkpoint(folder, *, text_folder, seed=5):
    """Writes the published files, with the text encoder of ``text_folder``; returns the other networks."""
    transformer, vae, projection = networks(seed)
    folder.mkdir(parents=True)
    own = projection.state_dict()
    embedding = "duration_emebdder.time_positional_embedding"
    main = {f"transformer.{name}": tensor for name, tensor in transformer.state_dict().items()}
    main |= {f"fc.0.{name}": own[f"pooled.{name}"] for name in ("weight", "bias")}
    main |= {f"{embedding}.1.{name}": own[f"duration.{name}"] for name in ("weight", "bias")}
    main[f"{embedding}.0.weights"] = own["frequencies"]
    for name, tensor in load_file(text_folder / "text_encoder" / "model.safetensors").items():
        main[f"text_encoder.{name}"] = tensor
    save_file(main, folder / "tangoflux.safetensors")
    save_file(vae.state_dict(), folder / "vae.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    shutil.copytree(text_folder / "tokenizer", folder / "words")
    shutil.copy(text_folder / "text_encoder" / "config.json", folder / "words")
    return transformer, vae, projection


def write_model(folder, *, text_folder):
    """Writes a converted checkpoint, a whole model folder."""
    from bsa_lightning.models.tangoflux.convert import convert_tangoflux

    write_checkpoint(folder / "original", text_folder=text_folder)
    convert_tangoflux(str(folder / "original"), folder / "model")
    return folder / "model"
