from types import SimpleNamespace

import pytest
from lightning.pytorch.utilities.data import has_len_all_ranks

from bsa_lightning.generation.predict import Captions
from bsa_lightning.generation.wav_writer import _file_name


@pytest.mark.parametrize(("rank", "numbers"), [(0, [0, 2, 4]), (1, [1, 3])])
def test_captions_are_dealt_out_each_once(tmp_path, rank, numbers):
    (tmp_path / "captions.txt").write_text("a\nb\nc\nd\ne\n")
    data = Captions(tmp_path / "captions.txt", batch_size=2)
    data.trainer = SimpleNamespace(global_rank=rank, world_size=2)
    data.setup("predict")
    assert [item for batch in data.predict_dataloader() for item in batch] == [(i, "abcde"[i]) for i in numbers]


def test_there_may_be_more_devices_than_captions(tmp_path):
    """Lightning refuses an empty share unless it is told that there may be one."""
    (tmp_path / "captions.txt").write_text("a\n")
    data = Captions(tmp_path / "captions.txt")
    data.trainer = SimpleNamespace(global_rank=1, world_size=2)
    data.setup("predict")
    strategy = SimpleNamespace(root_device="cpu", reduce=lambda length, reduce_op: length + 1)
    with pytest.warns(UserWarning, match="local rank has zero"):
        assert has_len_all_ranks(
            data.predict_dataloader(), strategy, data.allow_zero_length_dataloader_with_multiple_devices
        )


def test_file_names_are_safe_and_sorted():
    assert _file_name(7, "A dog, barking / in the rain!") == "0007-a-dog-barking-in-the-rain.wav"
    assert _file_name(0, "…") == "0000.wav"
