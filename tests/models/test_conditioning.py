import pytest
import torch

from bsa_lightning.models.conditioning import Conditioning


@pytest.fixture
def conditioning():
    states = torch.arange(24.0).reshape(2, 3, 4)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    return Conditioning({"states": states, "label": torch.ones(2, 5)}, {"states": mask})


def test_a_clip_of_a_split_has_no_padding_and_cat_is_the_inverse(conditioning):
    clips = conditioning.split()
    assert [clip.tensors["states"].shape for clip in clips] == [(1, 3, 4), (1, 1, 4)]
    assert all(clip.masks["states"].all() for clip in clips)
    again = Conditioning.cat(clips)
    assert torch.equal(again.masks["states"], conditioning.masks["states"])
    kept = conditioning.masks["states"][..., None] * conditioning.tensors["states"]
    assert torch.equal(again.tensors["states"], kept)
    assert torch.equal(again.tensors["label"], conditioning.tensors["label"])


def test_a_split_keeps_valid_positions_wherever_they_are():
    states = torch.arange(4.0).reshape(1, 4, 1)
    (clip,) = Conditioning({"states": states}, {"states": torch.tensor([[False, True, False, True]])}).split()
    assert clip.tensors["states"].flatten().tolist() == [1, 3]


def test_cat_pads_to_the_longest_with_zeros(conditioning):
    both = Conditioning.cat([conditioning, conditioning.split()[1]])
    assert both.tensors["states"].shape == (3, 3, 4)
    assert both.masks["states"].sum(1).tolist() == [3, 1, 1]
    assert not both.tensors["states"][2, 1:].any()


def test_padded_rounds_lengths_up_to_a_multiple(conditioning):
    padded = conditioning.padded(4)
    assert padded.tensors["states"].shape == (2, 4, 4)
    assert padded.masks["states"].sum(1).tolist() == [3, 1]
    assert padded.tensors["label"] is conditioning.tensors["label"]


def test_where_takes_the_null_for_dropped_captions(conditioning):
    null = Conditioning(
        {"states": torch.full((1, 1, 4), -1.0), "label": torch.zeros(1, 5)}, {"states": torch.ones(1, 1).bool()}
    )
    own = Conditioning({name: 9 * tensor for name, tensor in null.tensors.items()}, null.masks)
    mixed = conditioning.where(torch.tensor([True, False]), Conditioning.cat([own, null]))
    assert torch.equal(mixed.tensors["states"][0], conditioning.tensors["states"][0])
    assert mixed.tensors["states"][1, 0].tolist() == [-1.0] * 4
    assert mixed.masks["states"].tolist() == [[True, True, True], [True, False, False]]
    assert mixed.tensors["label"].sum(1).tolist() == [5, 0]


def test_repeat_and_index(conditioning):
    assert conditioning.repeat(2).masks["states"].sum(1).tolist() == [3, 3, 1, 1]
    assert len(conditioning[1:]) == 1


def test_dtype_leaves_masks_alone(conditioning):
    half = conditioning.to(dtype=torch.float16)
    assert half.tensors["states"].dtype == torch.float16
    assert half.masks["states"].dtype == torch.bool


def test_a_digest_tells_whatever_is_in_a_batch():
    states, mask = torch.arange(6.0).reshape(1, 3, 2), torch.ones(1, 3, dtype=torch.bool)
    batch, noise = Conditioning({"states": states}, {"states": mask}), torch.zeros(1, 2)
    digests = {
        batch.digest(),
        batch.digest(noise),
        batch.digest(noise + 1),
        Conditioning({"states": states + 1}, {"states": mask}).digest(noise),
        Conditioning({"states": states}, {"states": ~mask}).digest(noise),
        Conditioning({"other": states}, {"other": mask}).digest(noise),
    }
    assert len(digests) == 6
    assert batch.digest(noise) == Conditioning({"states": states.clone()}, {"states": mask.clone()}).digest(noise)
