from types import SimpleNamespace

import pytest

from bsa_lightning.generation.predict import Captions
from bsa_lightning.generation.wav_writer import _file_name


@pytest.mark.parametrize(("rank", "numbers"), [(0, [0, 2, 4]), (1, [1, 3])])
def test_captions_are_dealt_out_each_once(tmp_path, rank, numbers):
    (tmp_path / "captions.txt").write_text("a\nb\nc\nd\ne\n")
    data = Captions(tmp_path / "captions.txt", batch_size=2)
    data.trainer = SimpleNamespace(global_rank=rank, world_size=2)
    data.setup("predict")
    assert [item for batch in data.predict_dataloader() for item in batch] == [(i, "abcde"[i]) for i in numbers]


def test_file_names_are_safe_and_sorted():
    assert _file_name(7, "A dog, barking / in the rain!") == "0007-a-dog-barking-in-the-rain.wav"
    assert _file_name(0, "…") == "0000.wav"
