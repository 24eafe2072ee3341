"""Random weights in the formats of the published files, as light as files and as memory can be; and what to check."""

import math
import socket
import sys
import types
from itertools import pairwise

import numpy as np
import pytest
import torch

_VGGISH_CONVOLUTIONS = {0: (1, 64), 3: (64, 128), 6: (128, 256), 8: (256, 256), 11: (256, 512), 13: (512, 512)}
_VGGISH_LINEAR = {0: (12288, 4096), 2: (4096, 4096), 4: (4096, 128)}


def vggish_weights(seed=0):
    """The state dict that vggish-10086976.pth is."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for i, (channels, width) in _VGGISH_CONVOLUTIONS.items():
        weights[f"features.{i}.weight"] = _random(generator, width, channels, 3, 3)
        weights[f"features.{i}.bias"] = _random(generator, width)
    for i, (channels, width) in _VGGISH_LINEAR.items():
        weights[f"embeddings.{i}.weight"] = _random(generator, width, channels)
        weights[f"embeddings.{i}.bias"] = _random(generator, width)
    return weights


def pann_checkpoint(seed=0, window=512):
    """What Cnn14_16k_mAP=0.438.pth holds: the sampler of its training lies beside the model.

    At 8 and 32 kHz, the window of the spectrogram is 256 and 1024 samples long.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = {
        "spectrogram_extractor.stft.conv_real.weight": _random(generator, window // 2 + 1, 1, window),
        "spectrogram_extractor.stft.conv_imag.weight": _random(generator, window // 2 + 1, 1, window),
        "logmel_extractor.melW": _random(generator, window // 2 + 1, 64).abs(),
        **_batch_norm(generator, "bn0", 64),
    }
    for i, (channels, width) in enumerate(pairwise((1, 64, 128, 256, 512, 1024, 2048)), start=1):
        for j, inner in ((1, channels), (2, width)):
            weights[f"conv_block{i}.conv{j}.weight"] = _random(generator, width, inner, 3, 3)
            weights |= _batch_norm(generator, f"conv_block{i}.bn{j}", width)
    for name, width in (("fc1", 2048), ("fc_audioset", 527)):
        weights[f"{name}.weight"] = _random(generator, width, 2048)
        weights[f"{name}.bias"] = _random(generator, width)
    sampler = {"indexes_per_class": [np.arange(3), np.arange(5)], "queue": [1, 0], "pointers_of_classes": [0, 2]}
    return {"iteration": 600_000, "model": weights, "sampler": sampler}


def _random(generator, *shape):
    """Rows are windows of one random line, so that a file keeps that line alone."""
    fan_in = math.prod(shape[1:]) or shape[0]
    line = torch.randn(shape[0] + fan_in - 1, generator=generator) / math.sqrt(fan_in / 2)
    if len(shape) == 1:
        return line[: shape[0]]
    return line.as_strided((shape[0], fan_in), (1, 1)).unflatten(1, shape[1:])


def _batch_norm(generator, name, width):
    return {
        f"{name}.weight": 1 + 0.1 * torch.randn(width, generator=generator),
        f"{name}.bias": 0.1 * torch.randn(width, generator=generator),
        f"{name}.running_mean": torch.randn(width, generator=generator),
        f"{name}.running_var": 1 + torch.rand(width, generator=generator),
        f"{name}.num_batches_tracked": torch.tensor(600_000),
    }


def sounds(num_samples):
    """(3, samples) at 16 kHz: noise, a loud rising tone beside silence in all other bands, and clicks."""
    t = torch.arange(num_samples) / 16_000
    noise = 0.3 * torch.randn(num_samples, generator=torch.Generator().manual_seed(0))
    return torch.stack([noise, 0.9 * torch.sin(2 * torch.pi * (400 + 300 * t) * t), 0.9 * (t % 0.5 < 1e-4)])


def reference_log_mel(wave, *, offset):
    """torchvggish's front end, and YAMNet's, band by band, in float64."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi / 400 * np.arange(400))
    frames = [wave[i : i + 400] * window for i in range(0, len(wave) - 399, 160)]
    spectrum = np.abs(np.fft.rfft(frames, 512))
    to_mel = lambda hertz: 1127.0 * np.log(1.0 + hertz / 700.0)  # noqa: E731
    bins, edges = to_mel(np.linspace(0, 8000, 257)), np.linspace(to_mel(125.0), to_mel(7500.0), 66)
    mel = np.zeros((len(frames), 64))
    for band in range(64):
        low, center, high = edges[band : band + 3]
        weight = np.maximum(0, np.minimum((bins - low) / (center - low), (high - bins) / (high - center)))
        mel[:, band] = spectrum[:, 1:] @ weight[1:]
    return np.log(mel + offset)


def refuse_network(monkeypatch):
    """From here on, whoever looks up a name or connects gets an error."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def frechet_audio_distance(monkeypatch):
    """The package, without what its import fetches from the hub and nobody needs here."""
    for name in ("laion_clap", "encodec"):
        module = types.ModuleType(name)
        module.EncodecModel = None
        monkeypatch.setitem(sys.modules, name, module)
    return pytest.importorskip("frechet_audio_distance")


CLAP_TEXTS = ["a dog barks", "rain on a roof", ""]


def write_clap(folder, *, fusion=False, seed=0):
    """A whole folder as transformers saves it: tiny, but at CLAP's own rate, bands, picture and width."""
    from transformers import ClapAudioConfig, ClapConfig, ClapFeatureExtractor, ClapModel, RobertaTokenizer

    letters = sorted(set("".join(CLAP_TEXTS).replace(" ", "Ġ")))
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters]
    text = {
        "vocab_size": len(tokens),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 42,
        "pad_token_id": 1,
        "projection_dim": 512,
    }
    audio = ClapAudioConfig(
        patch_embeds_hidden_size=8,
        depths=[1, 1],
        num_attention_heads=[2, 2],
        hidden_size=16,
        projection_dim=512,
        enable_fusion=fusion,
        fusion_type="aff_2d" if fusion else None,
        aff_block_r=2,
    )
    torch.manual_seed(seed)
    model = ClapModel(ClapConfig(text_config=text, audio_config=audio.to_dict(), projection_dim=512))
    for weight in model.parameters():  # as initialised, all clips sound almost the same
        if weight.ndim > 1:
            torch.nn.init.kaiming_normal_(weight, nonlinearity="linear")
    model.save_pretrained(folder)
    ClapFeatureExtractor(truncation="fusion" if fusion else "rand_trunc").save_pretrained(folder)
    vocabulary = {token: i for i, token in enumerate(tokens)}
    RobertaTokenizer(vocab=vocabulary, merges=[], model_max_length=40).save_pretrained(folder)
    return folder
