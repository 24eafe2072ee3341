"""Whole folders of AudioLDM and AudioLDM 2 with random weights, as diffusers' own pipelines save them."""

import json

import torch
from tiny_model import CAPTIONS

LATENT_SHAPE = (4, 8, 16)
WIDTH = 16
NUM_GENERATED = 5
_LONGEST = 40
_TEXT = {
    "vocab_size": 32,
    "hidden_size": WIDTH,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": WIDTH,
    "max_position_embeddings": _LONGEST + 2,
    "pad_token_id": 1,
    "projection_dim": WIDTH,
}
_UNET = {
    "sample_size": LATENT_SHAPE[1],
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (16, 16),
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
}


def write_audioldm(folder, *, seed=0):
    """Writes what ``AudioLDMPipeline`` saves."""
    from diffusers import AudioLDMPipeline, UNet2DConditionModel
    from transformers import ClapTextConfig, ClapTextModelWithProjection

    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        **_UNET,
        cross_attention_dim=_UNET["block_out_channels"],
        class_embed_type="simple_projection",
        projection_class_embeddings_input_dim=WIDTH,
        class_embeddings_concat=True,
    )
    text_encoder = _loud(ClapTextModelWithProjection(ClapTextConfig(**_TEXT)))
    AudioLDMPipeline(text_encoder=text_encoder, tokenizer=_roberta(), unet=unet, **_sound()).save_pretrained(folder)
    return folder


def write_audioldm2(folder, *, seed=0):
    """Writes what ``AudioLDM2Pipeline`` saves; GPT-2 makes 5 states, so that no default passes for the config's."""
    from diffusers import AudioLDM2Pipeline, AudioLDM2ProjectionModel, AudioLDM2UNet2DConditionModel
    from transformers import (
        ClapAudioConfig,
        ClapConfig,
        ClapFeatureExtractor,
        ClapModel,
        GPT2Config,
        GPT2LMHeadModel,
        T5Config,
        T5EncoderModel,
    )

    torch.manual_seed(seed)
    audio = ClapAudioConfig(
        spec_size=8,
        num_mel_bins=8,
        patch_size=2,
        patch_stride=2,
        window_size=2,
        patch_embeds_hidden_size=8,
        depths=[1],
        num_attention_heads=[2],
        hidden_size=8,
        num_classes=2,
    )
    language = GPT2Config(
        vocab_size=4, n_positions=64, n_embd=12, n_layer=1, n_head=2, bos_token_id=None, eos_token_id=None
    )
    language.max_new_tokens = NUM_GENERATED
    clap = ClapConfig(text_config=_TEXT, audio_config=audio.to_dict(), projection_dim=WIDTH)
    projection = AudioLDM2ProjectionModel(WIDTH, 8, 12)
    for name in ("sos_embed", "eos_embed", "sos_embed_1", "eos_embed_1"):
        torch.nn.init.normal_(getattr(projection, name))
    AudioLDM2Pipeline(
        text_encoder=_loud(ClapModel(clap)),
        text_encoder_2=T5EncoderModel(T5Config(vocab_size=32, d_model=8, d_kv=8, num_heads=2, d_ff=16, num_layers=1)),
        projection_model=projection,
        language_model=_loud(GPT2LMHeadModel(language)),
        tokenizer=_roberta(),
        tokenizer_2=_t5(),
        feature_extractor=ClapFeatureExtractor(),
        unet=AudioLDM2UNet2DConditionModel(**_UNET, cross_attention_dim=((None, 12, 8), (None, 12, 8))),
        **_sound(),
    ).save_pretrained(folder)
    return folder


def edit(path, **changes):
    """Sets top-level entries of a JSON file; None takes one away."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def _sound():
    """Scheduler, autoencoder and vocoder, with the settings of the published ones where these matter."""
    from diffusers import AutoencoderKL, DDIMScheduler
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    vocoder = SpeechT5HifiGanConfig(
        model_in_dim=64,
        upsample_initial_channel=32,
        upsample_rates=[5, 4, 2, 2, 2],
        upsample_kernel_sizes=[16, 16, 8, 4, 4],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1, 3, 5]],
    )
    return {
        "scheduler": DDIMScheduler(
            num_train_timesteps=64,
            beta_schedule="scaled_linear",
            beta_start=0.0015,
            beta_end=0.1,
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        "vae": AutoencoderKL(
            in_channels=1,
            out_channels=1,
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(4, 4, 4),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=2,
            scaling_factor=0.5,
        ),
        "vocoder": _loud(SpeechT5HifiGan(vocoder)),
    }


def _loud(model):
    """As initialised, all captions say almost the same and all sounds are almost silence."""
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.kaiming_normal_(weight, nonlinearity="linear")
    return model.eval()


def _roberta():
    """Letters are its tokens; a space is written Ġ."""
    from transformers import RobertaTokenizer

    letters = sorted(set("".join(CAPTIONS).replace(" ", "Ġ")))
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters]
    return RobertaTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=_LONGEST)


def _t5():
    """Words are its tokens."""
    from transformers import T5Tokenizer

    words = sorted({f"▁{word}" for caption in CAPTIONS for word in caption.split()})
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    return T5Tokenizer(vocab=[*special, *((word, -1.0) for word in words)], extra_ids=0, model_max_length=_LONGEST)
