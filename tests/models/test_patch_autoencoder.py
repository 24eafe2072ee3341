import pytest
import torch
from tolerances import FLOAT32

from bsa_lightning.models.patch_autoencoder import PatchAutoencoder


@pytest.fixture
def spectrograms():
    """Patches of low rank, each row of its own: eight frames of four rows, and their mixtures."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randn(4, 3, 8, 8, generator=generator)
    weights = torch.randn(50, 2, 4, 3, generator=generator)
    patches = torch.einsum("nfrk,rkxy->nfrxy", weights, patterns) - 6.0
    return patches.transpose(2, 3).reshape(50, 16, 32)


def test_as_many_components_as_patterns_lose_nothing(spectrograms):
    autoencoder = PatchAutoencoder(latent_channels=3, num_bands=32)
    autoencoder.fit(spectrograms)
    latents = autoencoder.encode(spectrograms[:, None]).latent_dist.mean
    assert latents.shape == (50, 3, 2, 4)
    torch.testing.assert_close(autoencoder.decode(latents).sample[:, 0], spectrograms, **FLOAT32)


def test_fewer_are_the_best_of_their_number_as_singular_values_say(spectrograms):
    autoencoder = PatchAutoencoder(latent_channels=2, num_bands=32)
    autoencoder.fit(spectrograms)
    decoded = autoencoder.decode(autoencoder.encode(spectrograms[:, None]).latent_dist.mean).sample[:, 0]
    lost = 0.0
    for row in range(4):
        patches = spectrograms[:, :, 8 * row : 8 * row + 8].unflatten(1, (2, 8)).flatten(0, 1).flatten(1)
        values = torch.linalg.svdvals((patches - patches.mean(0)).double())
        lost += float(values[2:].square().sum())
    assert float((decoded.detach() - spectrograms).double().square().sum()) == pytest.approx(lost, rel=1e-3)


def test_components_are_halfway_between_equal_variance_and_their_own(spectrograms):
    autoencoder = PatchAutoencoder(latent_channels=3, num_bands=32)
    autoencoder.fit(spectrograms)
    latents = autoencoder.encode(spectrograms[:, None]).latent_dist.mean
    spread = latents.transpose(0, 1).flatten(1, 2).std(1)  # (channels, rows)
    torch.testing.assert_close(spread.T, autoencoder.scale.detach(), **FLOAT32)
    assert (spread[0] > spread[2]).all()


def test_the_posterior_is_almost_a_point(spectrograms):
    autoencoder = PatchAutoencoder(latent_channels=3, num_bands=32)
    autoencoder.fit(spectrograms)
    with torch.no_grad():
        assert float(autoencoder.encode(spectrograms[:, None]).latent_dist.std.max()) < 1e-3


def test_a_saved_one_carries_its_code_and_opens_again(spectrograms, tmp_path):
    autoencoder = PatchAutoencoder(latent_channels=3, num_bands=32)
    autoencoder.fit(spectrograms)
    autoencoder.save_pretrained(tmp_path)
    assert (tmp_path / "patch_autoencoder.py").is_file()
    again = PatchAutoencoder.from_pretrained(tmp_path)
    assert torch.equal(again.basis, autoencoder.basis)
