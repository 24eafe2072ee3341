"""Embeddings that have learnt sound hear on the device what they hear on the CPU, with random weights."""

import warnings
from importlib.util import find_spec

import pytest
import torch
from embedding_weights import pann_checkpoint, sounds, vggish_weights, write_clap
from tolerances import DEVICES
from yamnet_weights import write_keras, yamnet_weights

from bsa_lightning.evaluation.embeddings.clap import CLAP
from bsa_lightning.evaluation.embeddings.encodec import EnCodec
from bsa_lightning.evaluation.embeddings.laion_clap import LaionCLAP
from bsa_lightning.evaluation.embeddings.package_code import import_alone
from bsa_lightning.evaluation.embeddings.pann import PANN
from bsa_lightning.evaluation.embeddings.vggish import VGGish
from bsa_lightning.evaluation.embeddings.yamnet import YAMNet


def vggish(path):
    torch.save(vggish_weights(), path)
    return VGGish(path)


def pann(path):
    torch.save(pann_checkpoint(), path)
    return PANN(path)


def yamnet(path):
    write_keras(path.with_suffix(".h5"), yamnet_weights())
    return YAMNet(path.with_suffix(".h5"))


def encodec(path, rate=24_000):
    from encodec import EncodecModel

    torch.save(getattr(EncodecModel, f"encodec_model_{rate // 1000}khz")(pretrained=False).state_dict(), path)
    return EnCodec(path, sample_rate=rate)


def laion_clap(path):
    from types import SimpleNamespace

    settings = SimpleNamespace(
        audio_length=1024, clip_samples=480_000, mel_bins=64, sample_rate=48_000, window_size=1024, hop_size=480,
        fmin=50, fmax=14_000, class_num=527, model_name="tiny",
    )  # fmt: skip
    branch = import_alone("laion_clap", "clap_module", "htsat").create_htsat_model(settings)
    projection = torch.nn.Sequential(torch.nn.Linear(768, 512), torch.nn.ReLU(), torch.nn.Linear(512, 512))
    weights = {f"module.audio_branch.{name}": value for name, value in branch.state_dict().items()}
    weights |= {f"module.audio_projection.{name}": value for name, value in projection.state_dict().items()}
    torch.save({"state_dict": weights}, path)
    return LaionCLAP(weights=path)


EARS = {
    "VGGish": vggish,
    "PANN": pann,
    "YAMNet": yamnet,
    "EnCodec at 24 kHz": encodec,
    "EnCodec at 48 kHz": lambda path: encodec(path, 48_000),
    "LAION's CLAP": laion_clap,
    "CLAP of transformers": lambda path: CLAP(write_clap(path.parent / "clap")),
}
PACKAGES = {"PANN": "frechet_audio_distance", "YAMNet": "h5py", "EnCodec": "encodec", "LAION's CLAP": "laion_clap"}
"""What a machine with torch and lightning may lack."""


@pytest.mark.parametrize("name", EARS)
def test_an_embedding_hears_on_the_device_what_it_hears_on_the_cpu(name, device, tmp_path):
    if name.startswith("EnCodec") and device.type != "cuda":
        pytest.skip("needs a CUDA device, which has its LSTM as one operation")
    if (package := PACKAGES.get(name.split(" at ")[0])) and find_spec(package) is None:
        pytest.skip(f"needs {package}")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ear = EARS[name](tmp_path / "weights.pth")
    waves = sounds(40_000)
    with torch.no_grad():
        here, there = ear(waves), ear.to(device)(waves.to(device))
    size = here.rows.abs().max()
    assert size > 0
    assert there.rows.device.type == device.type
    torch.testing.assert_close(there.rows.cpu() / size, here.rows / size, **DEVICES)
    if here.logits is not None:
        torch.testing.assert_close(there.logits.cpu(), here.logits, **DEVICES)
