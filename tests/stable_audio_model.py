"""A model folder in Stable Audio Open's layout with random weights, written by diffusers' own pipeline."""

import json
import shutil
import warnings
from contextlib import contextmanager

import torch

NUM_TOKENS = 8
LATENT_SHAPE = (4, 16)
HOP_LENGTH = 8
NUM_SAMPLES = LATENT_SHAPE[1] * HOP_LENGTH
SAMPLE_RATE = 44_100


def write_model(folder, text_folder, *, seed=0):
    """Writes a whole model; text encoder and tokenizer are those of ``text_folder``."""
    from diffusers import (
        AutoencoderOobleck,
        EDMDPMSolverMultistepScheduler,
        StableAudioDiTModel,
        StableAudioPipeline,
        StableAudioProjectionModel,
    )
    from transformers import AutoTokenizer, T5EncoderModel

    torch.manual_seed(seed)
    with library_warnings_ignored():
        StableAudioPipeline(
            vae=AutoencoderOobleck(
                encoder_hidden_size=2 * LATENT_SHAPE[0],
                downsampling_ratios=[2, 4],
                channel_multiples=[1, 2],
                decoder_channels=8,
                decoder_input_channels=LATENT_SHAPE[0],
                sampling_rate=SAMPLE_RATE,
            ),
            text_encoder=T5EncoderModel.from_pretrained(text_folder / "text_encoder"),
            projection_model=StableAudioProjectionModel(
                text_encoder_dim=16, conditioning_dim=12, min_value=0, max_value=NUM_SAMPLES / SAMPLE_RATE
            ),
            tokenizer=AutoTokenizer.from_pretrained(text_folder / "tokenizer", model_max_length=NUM_TOKENS),
            transformer=StableAudioDiTModel(
                sample_size=LATENT_SHAPE[1],
                in_channels=LATENT_SHAPE[0],
                num_layers=2,
                attention_head_dim=8,
                num_attention_heads=4,
                num_key_value_attention_heads=2,
                out_channels=LATENT_SHAPE[0],
                cross_attention_dim=16,
                time_proj_dim=8,
                global_states_input_dim=24,
                cross_attention_input_dim=12,
            ),
            # Its times are log(sigma) / 4: between 0 and 1 here, as the network wants them.
            scheduler=EDMDPMSolverMultistepScheduler(sigma_min=1.5, sigma_max=50.0, prediction_type="v_prediction"),
        ).save_pretrained(folder)
    return folder


def publish(source, folder):
    """A copy of a model that names the published scheduler, which cannot be built without torchsde."""
    shutil.copytree(source, folder)
    name = "CosineDPMSolverMultistepScheduler"
    set_scheduler(folder, ["diffusers", name])
    config = {"_class_name": name, "sigma_max": 500, "sigma_min": 0.3, "prediction_type": "v_prediction"}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    return folder


def set_scheduler(folder, entry):
    """Names another scheduler in a folder's index: [module, class]."""
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"scheduler": entry}))


def read_pipeline(folder, **settings):
    """The folder as diffusers reads it, without progress bars."""
    from diffusers import StableAudioPipeline

    with library_warnings_ignored():
        pipeline = StableAudioPipeline.from_pretrained(folder, low_cpu_mem_usage=False, **settings)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@contextmanager
def library_warnings_ignored():
    """The library builds its autoencoder with a function that torch wants to replace."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*weight_norm", category=FutureWarning)
        yield
