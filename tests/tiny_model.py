"""A model folder in Tango's layout with random weights, small enough to be made in a second."""

import json

import torch

CAPTIONS = ["a dog barks", "rain", "two birds sing in the rain"]
NUM_SAMPLES = 32 * 160
LATENT_SHAPE = (4, 8, 16)

INDEX = {
    "_class_name": "TangoPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    "vocoder": [None, None],
    "num_inference_steps": 8,
    "guidance_scale": 2.0,
}


def write_model(folder, *, seed=0, num_train_timesteps=64, flow_shift=None):
    """Writes unet/, scheduler/, vae/, text_encoder/, tokenizer/ and provenance.json; no vocoder.

    With ``flow_shift``, the model is a rectified flow with that shift of its grid.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    torch.manual_seed(seed)
    UNet2DConditionModel(
        sample_size=LATENT_SHAPE[1:],
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 16),
        layers_per_block=1,
        attention_head_dim=2,
        cross_attention_dim=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    ).save_pretrained(folder / "unet")
    scheduler = (
        DDIMScheduler(
            num_train_timesteps=num_train_timesteps,
            beta_schedule="scaled_linear",
            beta_start=0.0085,
            beta_end=0.2,
            prediction_type="v_prediction",
        )
        if flow_shift is None
        else FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=flow_shift)
    )
    scheduler.save_pretrained(folder / "scheduler")
    AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(4, 4, 4),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        scaling_factor=0.5,
    ).save_pretrained(folder / "vae")
    T5EncoderModel(T5Config(vocab_size=32, d_model=16, d_kv=8, num_heads=2, d_ff=16, num_layers=1)).save_pretrained(
        folder / "text_encoder"
    )
    words = ["<pad>", "</s>", "<unk>", *sorted({word for caption in CAPTIONS for word in caption.split()})]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder / "tokenizer")
    provenance = {"num_steps": 8, "guidance": "outside", "guidance_scale": 2.0, "licence": "Apache-2.0"}
    index = INDEX | {"scheduler": ["diffusers", type(scheduler).__name__]}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "provenance.json").write_text(json.dumps(provenance))
    return folder
