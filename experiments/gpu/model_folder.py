"""Model folders of Tango's and TangoFlux's families with random weights, at full size or small."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bsa_lightning.data.soundscapes import Soundscapes
from bsa_lightning.models.conversion import FLAN_T5_LARGE
from bsa_lightning.models.tango.shapes import SCHEDULER, UNET, VAE, VOCODER, vae_config
from bsa_lightning.models.tangoflux.caption_projection import CaptionProjection
from bsa_lightning.models.tangoflux.checkpoint import PUBLISHED_CONFIG, transformer_config
from bsa_lightning.models.tangoflux.denoiser import TangoFluxDenoiser

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")


class Size(NamedTuple):
    """Widths, and how much of everything is done."""

    unet: dict[str, Any]
    text: dict[str, Any]
    vae_width: int
    vocoder_width: int
    batch_sizes: tuple[int, ...]
    num_clips: tuple[int, int]
    updates: int
    steps: tuple[int, ...]
    flow: dict[str, Any]
    """What differs from the published configuration of TangoFlux."""
    flow_codec: dict[str, Any]
    """The arguments of the codec of TangoFlux; the defaults of diffusers are the published ones."""


FULL = Size({}, {}, VAE["ch"], VOCODER["upsample_initial_channel"], (32, 8), (32, 320), 5, (25, 200), {}, {})
SMALL = Size(
    {
        "block_out_channels": [32, 32, 64, 64],
        "attention_head_dim": [1, 1, 2, 2],
        "cross_attention_dim": 24,
        "sample_size": [32, 16],
    },
    {"d_model": 24, "d_kv": 6, "num_heads": 4, "d_ff": 40, "num_layers": 2},
    32,
    64,
    (2,),
    (2, 4),
    1,
    (2,),
    {
        "num_layers": 1,
        "num_single_layers": 1,
        "in_channels": 4,
        "num_attention_heads": 1,
        "joint_attention_dim": 24,
        "audio_seq_len": 16,
        "max_duration": 0.003,
    },
    {
        "encoder_hidden_size": 8,
        "downsampling_ratios": [2, 4],
        "channel_multiples": [1, 2],
        "decoder_channels": 6,
        "decoder_input_channels": 4,
    },
)


def write_model(folder: Path, size: Size) -> None:
    """Writes a whole model folder of Tango's family with random weights, drawn on the device."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, SpeechT5HifiGan, SpeechT5HifiGanConfig, T5Config, T5EncoderModel

    torch.manual_seed(0)
    widths = {"ch": size.vae_width, "ch_mult": VAE["ch_mult"], "num_res_blocks": 2, "z_channels": 8}
    clips = Soundscapes(max(size.num_clips), seed=7)
    words = sorted({word for i in range(max(size.num_clips)) for word in clips.captions(i)[0].split()})
    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *words])}
    with DEVICE:
        unet = UNet2DConditionModel.from_config(UNET | size.unet)
        text_encoder = T5EncoderModel(T5Config(**FLAN_T5_LARGE | size.text))
        vae = AutoencoderKL(**_vae(widths))
        vocoder = SpeechT5HifiGan(SpeechT5HifiGanConfig(**VOCODER | {"upsample_initial_channel": size.vocoder_width}))
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    named = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    parts = {"unet": unet, "text_encoder": text_encoder, "vae": vae, "vocoder": vocoder, "tokenizer": named}
    parts["scheduler"] = DDIMScheduler.from_config(SCHEDULER)
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    index = {name: [type(part).__module__.split(".")[0], type(part).__name__] for name, part in parts.items()}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "TangoPipeline", **index}))


def write_flow_model(folder: Path, size: Size, *, text: Path) -> None:
    """Writes a whole model folder of TangoFlux's family with random weights, drawn on the device.

    Args:
        folder: the model folder, which must not exist.
        size: the widths.
        text: a folder that :func:`write_model` wrote, whose text encoder and tokenizer are taken.
    """
    from diffusers import AutoencoderOobleck, FluxTransformer2DModel

    config = PUBLISHED_CONFIG | size.flow
    with DEVICE, warnings.catch_warnings():
        # diffusers builds the codec with a function that torch has deprecated.
        warnings.filterwarnings("ignore", message=".*weight_norm", category=FutureWarning)
        transformer = FluxTransformer2DModel.from_config(transformer_config(config))
        vae = AutoencoderOobleck(**size.flow_codec)
        projection = CaptionProjection(config["joint_attention_dim"], float(config["max_duration"]))
    TangoFluxDenoiser(transformer).save(folder)
    vae.save_pretrained(folder / "vae")
    projection.save_pretrained(folder / "projection")
    for name in ("text_encoder", "tokenizer"):
        shutil.copytree(text / name, folder / name)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "TangoFluxPipeline"}))


def _vae(widths: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the autoencoder, as ``lightning convert`` finds them from the shapes of weights."""
    shapes = {"encoder.conv_in.weight": torch.zeros(widths["ch"]), "post_quant_conv.weight": torch.zeros(8)}
    for level, factor in enumerate(widths["ch_mult"]):
        shapes[f"encoder.down.{level}.block.0.conv1.weight"] = torch.zeros(widths["ch"] * factor)
        shapes |= {f"encoder.down.{level}.block.{i}.conv1.weight": torch.zeros(1) for i in range(level, 2)}
        shapes[f"encoder.down.{level}.block.0.conv1.weight"] = torch.zeros(widths["ch"] * factor)
    return vae_config({"scale_factor": 0.2, "ddconfig": widths}, shapes)
