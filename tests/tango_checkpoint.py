"""A checkpoint in Tango's original layout with random weights, made from our modules through an inverse key map."""

import json
import re

import torch

INVERSE_VAE_NAMES = (
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.group_norm\.", ".mid.attn_1.norm."),
    (r"\.mid_block\.attentions\.0\.to_out\.0\.", ".mid.attn_1.proj_out."),
    (r"\.mid_block\.attentions\.0\.to_([qkv])\.", r".mid.attn_1.\1."),
    (r"\.down_blocks\.(\d)\.resnets\.", r".down.\1.block."),
    (r"\.down_blocks\.(\d)\.downsamplers\.0\.", r".down.\1.downsample."),
    (r"\.up_blocks\.(\d)\.resnets\.", r".up.\1.block."),
    (r"\.up_blocks\.(\d)\.upsamplers\.0\.", r".up.\1.upsample."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
)


def original_vae_names(weights):
    named = {}
    for name, tensor in weights.items():
        old = name
        for pattern, replacement in INVERSE_VAE_NAMES:
            old = re.sub(pattern, replacement, old)
        old = re.sub(r"^decoder\.up\.(\d)", lambda found: f"decoder.up.{2 - int(found[1])}", old)
        conv = re.search(r"\.mid\.attn_1\.(q|k|v|proj_out)\.weight", old)
        named[old] = tensor[:, :, None, None] if conv else tensor
    return named


def networks(seed):
    """UNet, VAE, vocoder and T5 encoder of other widths than Tango's, every weight random."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig, T5Config, T5EncoderModel

    from bsa_lightning.models.tango.shapes import UNET, VOCODER

    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        **UNET
        | {"block_out_channels": [64, 64, 128, 128], "attention_head_dim": [1, 1, 2, 2], "cross_attention_dim": 24}
    )
    vae = AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=[32, 32, 64],
        layers_per_block=2,
        latent_channels=8,
        scaling_factor=0.7,
    )
    vocoder = SpeechT5HifiGan(SpeechT5HifiGanConfig(**VOCODER | {"upsample_initial_channel": 64}))
    text_encoder = T5EncoderModel(
        T5Config(
            vocab_size=32,
            d_model=24,
            d_kv=6,
            num_heads=4,
            d_ff=40,
            num_layers=3,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
        )
    )
    for network in (unet, vae, vocoder, text_encoder):
        network.eval()
        for parameter in network.parameters():  # biases and norms too, which start as zeros and ones
            parameter.data += 0.05 * torch.randn_like(parameter)
    return unet, vae, vocoder, text_encoder


def write_checkpoint(folder, *, seed=3, tokenizer):
    """Writes the published files; returns the networks that they came from. ``tokenizer`` is copied beside them."""
    unet, vae, vocoder, text_encoder = networks(seed)
    folder.mkdir(parents=True)
    main = {f"unet.{name}": tensor for name, tensor in unet.state_dict().items()}
    main |= {f"text_encoder.{name}": tensor for name, tensor in text_encoder.state_dict().items()}
    torch.save(main, folder / "pytorch_model_main.bin")
    codec = original_vae_names(vae.state_dict())
    for name, tensor in vocoder.state_dict().items():
        if name not in ("mean", "scale"):
            codec[f"vocoder.{name.replace('upsampler.', 'ups.')}"] = tensor
    torch.save(codec, folder / "pytorch_model_vae.bin")
    (folder / "main_config.json").write_text(
        json.dumps({"text_encoder_name": "words", "unet_model_config_path": "configs/diffusion_model_config.json"})
    )
    (folder / "vae_config.json").write_text(json.dumps({"scale_factor": 0.7}))
    tokenizer.save_pretrained(folder / "words")
    return unet, vae, vocoder, text_encoder
