import pytest
from toy_clips import ToyClips

from bsa_lightning.common.errors import UserError
from bsa_lightning.data.datamodule import AudioCapsLatents, Prepared
from bsa_lightning.data.prepare import prepare_folder
from bsa_lightning.data.soundscapes import Soundscapes

WRONG = [True, -1, 0.5, float("nan"), float("inf"), "2", None]


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("name", ["batch_size", "num_workers", "seed", "num_val_clips"])
def test_the_stream_takes_whole_numbers_in_their_range(name, value):
    with pytest.raises(UserError, match=f"^{name} is {value!r}, but must be a whole number"):
        AudioCapsLatents(Prepared("x"), **{name: value})


@pytest.mark.parametrize("value", [0, *WRONG[:-1]])
def test_shards_to_shuffle(value):
    with pytest.raises(UserError, match=f"^shuffle_shards is {value!r}, but must be a whole number"):
        AudioCapsLatents(Prepared("x"), shuffle_shards=value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_workers", 1025), ("seed", 2**63), ("batch_size", 0), ("num_val_clips", 0), ("batch_size", 10**30)],
)
def test_numbers_just_beyond(name, value):
    with pytest.raises(UserError, match=f"^{name} is {value}, but must be a whole number"):
        AudioCapsLatents(Prepared("x"), **{name: value})


def test_numbers_at_the_ends_of_their_ranges_are_taken():
    AudioCapsLatents(Prepared("x"), batch_size=1, num_workers=0, seed=2**63 - 1, num_val_clips=1, shuffle_shards=1)
    assert len(Soundscapes(1, seed=2**63 - 1)) == 1


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("name", ["num_clips", "seed"])
def test_soundscapes(name, value):
    with pytest.raises(UserError, match=f"^{name} is {value!r}, but must be a whole number"):
        Soundscapes(**{"num_clips": 3, name: value})


@pytest.mark.parametrize("value", [0, *WRONG])
@pytest.mark.parametrize("name", ["batch_size", "shard_size", "devices"])
def test_prepare(name, value, tmp_path):
    with pytest.raises(UserError, match=f"^{name} is {value!r}, but must be a whole number"):
        prepare_folder(ToyClips(3), tmp_path / "store", **{name: value})
    assert list(tmp_path.iterdir()) == []
