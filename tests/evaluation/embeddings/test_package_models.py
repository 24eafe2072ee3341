"""The networks of frechet-audio-distance's packages, with random weights, behind our embeddings."""

import sys
import types
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from embedding_weights import pann_checkpoint, refuse_network, sounds
from tolerances import FLOAT32

from bsa_lightning.cli.as_config import as_config
from bsa_lightning.common.errors import UserError
from bsa_lightning.evaluation.embeddings import encodec, laion_clap
from bsa_lightning.evaluation.embeddings.encodec import EnCodec
from bsa_lightning.evaluation.embeddings.laion_clap import LaionCLAP
from bsa_lightning.evaluation.embeddings.package_code import WithoutDraws, import_alone
from bsa_lightning.evaluation.embeddings.pann import PANN


def encodec_model(rate):
    from encodec import EncodecModel

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return getattr(EncodecModel, f"encodec_model_{rate // 1000}khz")(pretrained=False)


@pytest.fixture(scope="module")
def encodec_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encodec")
    for rate in (24_000, 48_000):
        torch.save(encodec_model(rate).state_dict(), folder / f"{rate}.th")
    return folder


def by_the_package(model_name, model, waves, rate, monkeypatch):
    """Rows of frechet-audio-distance's own ``get_embeddings``, without its constructor, which fetches."""
    for name in ("laion_clap", "encodec"):
        module = types.ModuleType(name)
        module.EncodecModel = None
        monkeypatch.setitem(sys.modules, name, module)
    from frechet_audio_distance import FrechetAudioDistance

    package = object.__new__(FrechetAudioDistance)
    package.model_name, package.model, package.verbose, package.device = model_name, model, False, torch.device("cpu")
    return torch.from_numpy(package.get_embeddings(list(waves.numpy()), rate))


@pytest.mark.parametrize("rate", [24_000, 48_000])
def test_rows_of_encodec_are_those_of_frechet_audio_distance(encodec_files, monkeypatch, rate):
    embedding = EnCodec(encodec_files / f"{rate}.th", sample_rate=rate)
    waves = sounds(5_000)
    rows = embedding(waves).rows
    assert rows.shape == (3, embedding.num_rows(5_000), 128)
    theirs = by_the_package("encodec", encodec_model(rate).eval(), waves, rate, monkeypatch)
    torch.testing.assert_close(rows.flatten(0, 1), theirs, **FLOAT32)
    assert not torch.allclose(rows[0], rows[1], atol=1e-3)


@pytest.mark.parametrize("num_samples", [1, 319, 320, 321, 3_200])
def test_the_number_of_rows_of_encodec_is_known_beforehand(encodec_files, num_samples):
    embedding = EnCodec(encodec_files / "24000.th")
    assert embedding(torch.zeros(1, num_samples)).rows.shape[1] == embedding.num_rows(num_samples)


def test_networks_of_encodec_have_columns_of_their_own(encodec_files):
    two = [EnCodec(encodec_files / f"{rate}.th", sample_rate=rate) for rate in (24_000, 48_000)]
    assert [(each.name, each.metric) for each in two] == [
        ("encodec", "fd_encodec"),
        ("encodec_48k", "fd_encodec_48k"),
    ]


def test_a_file_of_the_other_network_of_encodec_is_refused(encodec_files):
    with pytest.raises(UserError, match=r"holds other weights: .* put encodec_24khz-d7cc33bc\.th from https://github"):
        EnCodec(encodec_files / "48000.th")


def test_the_first_digits_of_a_digest_stand_for_it(encodec_files, tmp_path):
    path = tmp_path / encodec.PUBLISHED[48_000].name
    path.write_bytes((encodec_files / "48000.th").read_bytes())
    with pytest.raises(UserError, match="damaged or another file"):
        EnCodec(tmp_path, sample_rate=48_000)
    assert encodec.PUBLISHED[48_000].is_it("7e698e3e" + 56 * "0")


SETTINGS = SimpleNamespace(
    audio_length=1024,
    clip_samples=480_000,
    mel_bins=64,
    sample_rate=48_000,
    window_size=1024,
    hop_size=480,
    fmin=50,
    fmax=14_000,
    class_num=527,
    model_name="tiny",
)
"""What laion_clap's HTSAT-tiny.json says of sound."""


@pytest.fixture(scope="module")
def original():
    """The package's encoder of sound, with the projection that its ``CLAP`` makes."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        branch = import_alone("laion_clap", "clap_module", "htsat").create_htsat_model(SETTINGS)
    projection = torch.nn.Sequential(torch.nn.Linear(768, 512), torch.nn.ReLU(), torch.nn.Linear(512, 512))
    return branch.eval(), projection


@pytest.fixture(scope="module")
def checkpoint(original, tmp_path_factory):
    """As LAION's: names of a parallel module, the text encoder beside, and numpy's numbers in the state of training."""
    branch, projection = original
    weights = {f"module.audio_branch.{name}": value for name, value in branch.state_dict().items()}
    weights |= {f"module.audio_projection.{name}": value for name, value in projection.state_dict().items()}
    weights["module.text_branch.embeddings.position_ids"] = torch.arange(4)
    path = tmp_path_factory.mktemp("laion") / "own.pt"
    torch.save({"epoch": 15, "best": np.float64(0.9), "state_dict": weights}, path)
    return path


def test_rows_are_those_of_laions_network(original, checkpoint):
    branch, projection = original
    embedding = LaionCLAP(weights=checkpoint)
    waves = sounds(150_000)[:2]
    rows = embedding(waves).rows
    heard = torch.cat([waves, waves, waves, torch.zeros(2, 30_000)], dim=1)
    with torch.no_grad():
        expected = projection(branch({"waveform": heard, "longer": torch.zeros(2, dtype=torch.bool)})["embedding"])
    torch.testing.assert_close(rows[:, 0], expected / expected.norm(dim=1, keepdim=True), **FLOAT32)
    assert torch.cdist(rows[:, 0], rows[:, 0])[0, 1] > 1e-3


def test_settings_from_python_are_checked_and_kept(checkpoint):
    recorded = as_config(LaionCLAP(weights=str(checkpoint)))["init_args"]
    assert (recorded["submodel"], recorded["weights"]) == ("630k-audioset", str(checkpoint))
    for make, text in (
        (lambda: LaionCLAP("music"), 'submodel is "music", but must be one of 630k-audioset'),
        (lambda: PANN(sample_rate=44_100), "sample_rate is 44100, but must be one of 8000, 16000, 32000"),
        (lambda: EnCodec(sample_rate=16_000), "sample_rate is 16000, but must be one of 24000, 48000"),
    ):
        with pytest.raises(UserError, match=text):
            make()


def test_a_long_clip_is_cut_to_its_beginning(checkpoint):
    embedding = LaionCLAP(weights=checkpoint)
    long = sounds(500_000)[:1]
    torch.testing.assert_close(embedding(long).rows, embedding(long[:, :480_000]).rows, rtol=0, atol=0)


def test_a_checkpoint_of_another_size_is_refused(checkpoint):
    with pytest.raises(UserError, match=r"other weights.*put music_audioset_epoch_15_esc_90\.14\.pt from https://hugg"):
        LaionCLAP("music_audioset", weights=checkpoint)


@pytest.mark.parametrize("content", [[1], {"state_dict": 3}, {}], ids=["list", "number", "empty"])
def test_what_is_no_checkpoint_of_laion_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt holds other weights: it (has no state dict|lacks audio_branch)"):
        LaionCLAP(weights=tmp_path / "other.pt")


def test_a_checkpoint_from_the_hub_is_the_published_one(checkpoint, tmp_path, monkeypatch, caplog):
    file = tmp_path / "630k-audioset-best.pt"
    file.write_bytes(checkpoint.read_bytes())
    monkeypatch.setattr(laion_clap, "fetch", lambda hub_id, files, option: tmp_path)
    assert LaionCLAP().fingerprint == LaionCLAP(weights=checkpoint).fingerprint
    assert [record.args[0] for record in caplog.records] == [checkpoint]
    assert "nothing checks it" in caplog.text


def test_without_a_network_a_checkpoint_is_named(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"lukewys/laion_clap.*630k-audioset-best\.pt"):
        LaionCLAP()


class Code:
    def __reduce__(self):
        return print, ("a weight file ran code",)


@pytest.mark.parametrize("make", [EnCodec, lambda path: LaionCLAP(weights=path), PANN])
def test_no_code_of_a_file_runs(tmp_path, capsys, make):
    torch.save({"state_dict": Code(), "model": Code()}, tmp_path / "code.pt")
    with pytest.raises(UserError, match="not a whole file of weights"):
        make(tmp_path / "code.pt")
    assert "ran code" not in capsys.readouterr().out


def test_they_are_frozen_and_touch_neither_network_nor_generator(encodec_files, checkpoint, tmp_path, monkeypatch):
    refuse_network(monkeypatch)
    torch.save(pann_checkpoint(), tmp_path / "pann.pth")
    before = torch.get_rng_state()
    made = [EnCodec(encodec_files / "24000.th"), LaionCLAP(weights=checkpoint), PANN(tmp_path / "pann.pth")]
    for embedding in made:
        embedding.train()
        assert not any(module.training for module in embedding.modules())
        assert not any(weight.requires_grad for weight in embedding.parameters())
        assert not embedding(sounds(32_000)[:1].requires_grad_()).rows.requires_grad
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_are_not_drawn_in_the_context_alone():
    with WithoutDraws():
        layer = torch.nn.Linear(3, 3)
        torch.nn.init.zeros_(layer.weight)
        assert torch.nn.init.xavier_uniform_(layer.weight) is layer.weight
        assert not layer.weight.any()
    assert torch.nn.init.xavier_uniform_(layer.weight).any()
    assert laion_clap.Submodel.__args__ == tuple(laion_clap._FILES)
