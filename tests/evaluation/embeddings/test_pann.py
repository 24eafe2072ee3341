import sys

import pytest
import torch
from embedding_weights import pann_checkpoint, refuse_network, sounds
from tolerances import FLOAT32
from torch.nn.functional import avg_pool2d, batch_norm, conv1d, conv2d, linear, pad, relu

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


def reference_network(weights, waves, *, hop):
    """Cnn14 layer by layer, with its spectrogram in float64: (n, 2048) and (n, 527)."""
    norm = lambda x, name: batch_norm(  # noqa: E731
        x, *(weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    )
    kernels = [weights[f"spectrogram_extractor.stft.conv_{part}.weight"].double() for part in ("real", "imag")]
    half = kernels[0].shape[2] // 2
    padded = pad(waves[:, None].double(), (half, half), mode="reflect")
    power = sum(conv1d(padded, kernel, stride=hop).square() for kernel in kernels)
    bands = weights["logmel_extractor.melW"].double()
    x = norm((10 * (bands.T @ power).clamp(min=1e-10).log10()).float(), "bn0").mT[:, None]
    for i in range(1, 7):
        for j in (1, 2):
            x = conv2d(x, weights[f"conv_block{i}.conv{j}.weight"], padding=1)
            x = relu(norm(x, f"conv_block{i}.bn{j}"))
        x = avg_pool2d(x, 2) if i < 6 else x
    x = x.mean(3)
    embedding = relu(linear(x.amax(2) + x.mean(2), weights["fc1.weight"], weights["fc1.bias"]))
    return embedding, linear(embedding, weights["fc_audioset.weight"], weights["fc_audioset.bias"])


def assert_features_close(ours, embedding, logits):
    for found, expected in ((ours.rows[:, 0], embedding), (ours.logits, logits)):
        size = expected.abs().max()
        torch.testing.assert_close(found / size, expected / size, **FLOAT32)


def test_features_are_those_of_the_network_in_the_paper(embedding):
    waves = sounds(40_000)
    ours = embedding(waves)
    assert_features_close(ours, *reference_network(pann_checkpoint()["model"], waves, hop=160))
    distances = torch.cdist(ours.rows[:, 0], ours.rows[:, 0])
    assert distances[~torch.eye(3, dtype=bool)].min() > 1e-2 * ours.rows.max()


@pytest.mark.parametrize(("rate", "window", "hop"), [(8_000, 256, 80), (32_000, 1024, 320)])
def test_networks_of_other_rates(tmp_path, rate, window, hop):
    checkpoint = pann_checkpoint(window=window)
    torch.save(checkpoint, tmp_path / "random.pth")
    other = PANN(tmp_path / "random.pth", sample_rate=rate)
    assert (other.name, other.metric, other.sample_rate) == (f"pann_{rate // 1000}k", f"fd_{other.name}", rate)
    assert other.fingerprint.startswith(f"pann_{rate // 1000}k-")
    waves = sounds(2 * rate)[:1]
    assert_features_close(other(waves), *reference_network(checkpoint["model"], waves, hop=hop))


def test_a_spectrogram_is_computed_in_float64(embedding, monkeypatch):
    """In float32, the rounding of a loud tone is louder than quiet sound beside it, and on GPUs in TF32 more so."""
    seen = []
    for module in (embedding.network.spectrogram_extractor, embedding.network.logmel_extractor):
        monkeypatch.setattr(module, "forward", lambda x, inner=module.forward: seen.append(x.dtype) or inner(x))
    embedding(sounds(32_000))
    assert seen == [torch.float64, torch.float64]
    assert embedding.network.conv_block1.conv1.weight.dtype == torch.float32


def test_the_package_is_not_imported_for_its_networks(embedding):
    """Its import asks the hub for tokenizers."""
    assert "laion_clap" not in sys.modules


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


@pytest.mark.parametrize("name", [PUBLISHED[16_000].name, "Cnn14_16k_mAP%3D0.438.pth"])
def test_a_published_name_stands_for_the_published_bytes(file, tmp_path, name):
    (tmp_path / name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="damaged or another file"):
        PANN(tmp_path / name)


def test_a_file_of_unknown_digest_is_not_fetched(tmp_path, monkeypatch):
    refuse_network(monkeypatch)
    with pytest.raises(UserError, match=r"no such file.*put Cnn14_8k_mAP=0\.416\.pth from https://zenodo.* there"):
        PANN(tmp_path, sample_rate=8_000)


def test_a_file_of_unknown_digest_is_taken_by_its_name(tmp_path, caplog):
    torch.save(pann_checkpoint(window=256), tmp_path / PUBLISHED[8_000].name)
    PANN(tmp_path, sample_rate=8_000)
    assert "nothing checks" in caplog.text


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
