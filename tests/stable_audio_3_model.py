"""A model folder in the layout of Stable Audio 3's pipeline with random weights, written by diffusers itself."""

import json
import string

import torch
from stable_audio_model import library_warnings_ignored

CHANNELS = 4
SAMPLE_RATE = 44_100
FRAME = 16
"""The number of samples that a frame of the latent represents."""
SECONDS = 0.005
"""The longest duration, and so the default."""
NUM_SAMPLES = int(SECONDS * SAMPLE_RATE)
LATENT_SHAPE = (CHANNELS, 14)
WIDTH = 16


def write_model(folder, *, seed=0, bos=False):
    """Writes a whole model; with ``bos``, its tokenizer marks the start of a caption and pads on the right."""
    from diffusers import StableAudio3Pipeline

    torch.manual_seed(seed)
    with library_warnings_ignored():
        parts = _networks()
    with torch.no_grad():
        # What begins as zeros, or as a constant, matters here too.
        for parameter in [weight for part in parts.values() for weight in part.parameters()]:
            if not parameter.any() or bool((parameter == 1).all()):
                parameter.add_(0.3 * torch.randn_like(parameter))
        parts["vae"].bottleneck.running_std.fill_(0.7)
        parts["vae"].decoder.blocks[0].new_tokens.normal_(std=0.6)  # loud enough to be limited
    StableAudio3Pipeline(
        **parts,
        tokenizer=tokenizer(padding_side="right" if bos else "left", bos=bos),
        scheduler=scheduler(),
    ).save_pretrained(folder)
    return folder


def tokenizer(*, padding_side, bos=False, num_tokens=256):
    """A tokenizer of single letters."""
    from tokenizers.processors import TemplateProcessing
    from transformers import GemmaTokenizer

    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *string.ascii_lowercase]
    found = GemmaTokenizer(
        vocab={word: i for i, word in enumerate(words)}, model_max_length=num_tokens, padding_side=padding_side
    )
    if bos:
        found._tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    return found


def scheduler(**settings):
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**{"num_train_timesteps": 1} | settings)


def read_pipeline(folder):
    """The folder as diffusers reads it, without progress bars."""
    from diffusers import StableAudio3Pipeline

    with library_warnings_ignored():
        pipeline = StableAudio3Pipeline.from_pretrained(folder, low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def edit(folder, name, **changes):
    """Changes entries of a JSON file of the folder."""
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _networks():
    from diffusers import AutoencoderSAME, StableAudio3DiTModel, StableAudio3DurationEmbedder
    from transformers import T5GemmaConfig, T5GemmaEncoderModel

    text = {
        "vocab_size": 40,
        "hidden_size": WIDTH,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": 64,
    }
    return {
        "transformer": StableAudio3DiTModel(
            io_channels=CHANNELS,
            embed_dim=32,
            depth=2,
            num_heads=2,
            cond_token_dim=WIDTH,
            global_cond_dim=WIDTH,
            local_add_cond_dim=CHANNELS + 1,
            timestep_features_dim=16,
            ff_mult=2.0,
            num_memory_tokens=3,
        ),
        "vae": AutoencoderSAME(
            patch_size=8,
            encoder_channels=8,
            encoder_c_mults=[3],
            encoder_strides=[2],
            encoder_transformer_depths=[1],
            latent_dim=CHANNELS,
            dim_heads=8,
            ff_mult=2,
            sampling_rate=SAMPLE_RATE,
        ),
        "duration_embedder": StableAudio3DurationEmbedder(output_dim=WIDTH, fourier_dim=8, max_val=SECONDS),
        "text_encoder": T5GemmaEncoderModel(
            T5GemmaConfig(encoder=text, decoder=dict(text), is_encoder_decoder=False)
        ).eval(),
    }
