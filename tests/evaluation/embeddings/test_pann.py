import pytest
import torch
from embedding_weights import frechet_audio_distance, pann_checkpoint, refuse_network, sounds
from tolerances import FLOAT32

from bsa_lightning.common.errors import UserError
from bsa_lightning.evaluation.embeddings.pann import PANN, PUBLISHED


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("pann") / "random.pth"
    torch.save(pann_checkpoint(), path)
    return path


@pytest.fixture(scope="module")
def embedding(file):
    return PANN(file)


def original(monkeypatch):
    """PANNs' own class, which frechet-audio-distance ships, with the same weights."""
    frechet_audio_distance(monkeypatch)
    from frechet_audio_distance.models.pann import Cnn14_16k

    with monkeypatch.context() as patch:
        for name in ("kaiming_uniform_", "xavier_uniform_", "uniform_"):  # seconds, for weights that are replaced
            patch.setattr(torch.nn.init, name, lambda tensor, *_args, **_kwargs: tensor)
        network = Cnn14_16k(16_000, 512, 160, 64, 50, 8000, 527).eval()
    network.load_state_dict(pann_checkpoint()["model"], assign=True)
    return network


def test_features_are_those_of_panns_own_class(embedding, monkeypatch):
    waves = sounds(40_000)
    ours = embedding(waves)
    with torch.no_grad():
        theirs = original(monkeypatch)(waves)
    size = theirs["embedding"].max()
    torch.testing.assert_close(ours.rows[:, 0] / size, theirs["embedding"] / size, **FLOAT32)
    torch.testing.assert_close(ours.logits.sigmoid(), theirs["clipwise_output"], **FLOAT32)
    assert torch.cdist(ours.rows[:, 0], ours.rows[:, 0])[~torch.eye(3, dtype=bool)].min() > 1e-2 * size


@pytest.mark.parametrize("seconds", [0.01, 2, 2.3])
def test_one_row_and_527_logits_a_clip(embedding, seconds):
    features = embedding(sounds(int(seconds * 16_000)))
    assert features.rows.shape == (3, 1, embedding.num_features)
    assert features.logits.shape == (3, 527)
    assert features.rows.isfinite().all()


def test_a_short_clip_is_padded_to_two_seconds_at_its_end(embedding):
    short = sounds(20_000)[:1]
    padded, longer = (torch.nn.functional.pad(short, (0, n)) for n in (12_000, 28_000))
    torch.testing.assert_close(embedding(short).rows, embedding(padded).rows, rtol=0, atol=0)
    assert not torch.equal(embedding(short).rows, embedding(longer).rows)


def test_a_clip_does_not_depend_on_its_batch(embedding):
    waves = sounds(32_000)
    rows = embedding(waves).rows
    torch.testing.assert_close(rows[1:2] / rows.max(), embedding(waves[1:2]).rows / rows.max(), **FLOAT32)


def test_it_is_frozen_and_touches_no_network(file, monkeypatch):
    refuse_network(monkeypatch)
    embedding = PANN(file).train()
    assert not any(module.training for module in embedding.modules())
    assert not any(weight.requires_grad for weight in embedding.parameters())
    assert not embedding(sounds(16_000)[:1].requires_grad_()).logits.requires_grad


def test_fingerprint_changes_with_the_bytes(embedding, tmp_path):
    torch.save(pann_checkpoint(seed=1), tmp_path / "other.pth")
    assert embedding.fingerprint.startswith("pann-")
    assert PANN(tmp_path / "other.pth").fingerprint != embedding.fingerprint


def test_a_missing_file_is_named_with_its_source(tmp_path):
    with pytest.raises(UserError, match=r"gone\.pth.*put Cnn14_16k_mAP=0\.438\.pth from https://zenodo\.org"):
        PANN(tmp_path / "gone.pth")


@pytest.mark.parametrize("name", [PUBLISHED.name, "Cnn14_16k_mAP%3D0.438.pth"])
def test_a_published_name_stands_for_the_published_bytes(file, tmp_path, name):
    (tmp_path / name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="damaged or another file"):
        PANN(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("model"), 'no state dict under "model"'),
        (lambda content: content["model"].pop("bn0.running_mean"), r"it lacks bn0\.running_mean"),
        (
            lambda content: content["model"].update(
                {"spectrogram_extractor.stft.conv_real.weight": torch.zeros(513, 1, 1024)}
            ),
            r"conv_real\.weight is \(513, 1, 1024\), not \(257, 1, 512\)",
        ),
    ],
    ids=["no model", "lacking", "of 32 kHz"],
)
def test_a_wrong_file_is_refused(tmp_path, change, message):
    content = pann_checkpoint()
    change(content)
    torch.save(content, tmp_path / "wrong.pth")
    with pytest.raises(UserError, match=message):
        PANN(tmp_path / "wrong.pth")


def test_a_truncated_file_is_refused(file, tmp_path):
    (tmp_path / "half.pth").write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(UserError, match=r"not a whole file of weights; put Cnn14_16k_mAP=0\.438\.pth"):
        PANN(tmp_path / "half.pth")
