"""Whole model folders of every family with something wrong in them: each is refused in one sentence."""

import random
import shutil

import audioldm_models
import pytest
import stable_audio_3_model
import stable_audio_model
import tangoflux_checkpoint
import torch
from model_faults import FAULTS, HARMLESS
from tolerances import FLOAT32

from bsa_lightning.common.errors import UserError
from bsa_lightning.models.loading import load_parts

SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("stable_audio_3", "tangoflux")]
FAMILIES = ["tango", "audioldm", "audioldm2", "stable_audio", *SLOW]
SIMILAR = [pytest.param("audioldm2", marks=pytest.mark.slow)]
"""Read as AudioLDM is, but for its text encoders."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory, teacher_folder):
    root = tmp_path_factory.mktemp("families")
    tangoflux = tangoflux_checkpoint.write_model(root / "tangoflux", text_folder=teacher_folder)
    (tangoflux / "provenance.json").unlink()  # as of the others, whose files no digest holds
    return {
        "tango": teacher_folder,
        "audioldm": audioldm_models.write_audioldm(root / "audioldm"),
        "audioldm2": audioldm_models.write_audioldm2(root / "audioldm2"),
        "stable_audio": stable_audio_model.write_model(root / "stable_audio", teacher_folder),
        "stable_audio_3": stable_audio_3_model.write_model(root / "stable_audio_3"),
        "tangoflux": tangoflux,
    }


@pytest.fixture
def copy(folders, request, tmp_path):
    return shutil.copytree(folders[request.param], tmp_path / "model")


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("copy", FAMILIES, indirect=True)
def test_a_fault_is_refused_in_one_sentence(copy, name):
    FAULTS[name](copy, random.Random(f"{copy} {name}".rpartition("/")[2]))
    with pytest.raises(UserError) as caught:
        load_parts(copy)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert ";" in sentence or "must be" in sentence
    assert len(sentence) < 700


@pytest.mark.parametrize("name", HARMLESS)
@pytest.mark.parametrize("copy", ["tango", "audioldm", "stable_audio", *SIMILAR, *SLOW], indirect=True)
def test_what_does_not_matter_is_read_as_before(copy, name):
    before = load_parts(copy)
    HARMLESS[name](copy, random.Random(name))
    after = load_parts(copy)
    for ours, theirs in ((before.denoiser, after.denoiser), (before.codec, after.codec)):
        weights = theirs.state_dict()
        assert weights.keys() == ours.state_dict().keys()
        assert all(torch.equal(weight, weights[key]) for key, weight in ours.state_dict().items())
    captions = ["rain", "a dog barks"]
    # Some matrix products round differently where the weights lie differently in memory.
    found, expected = (dict(parts.conditioner(captions).tensors) for parts in (after, before))
    torch.testing.assert_close(found, expected, **FLOAT32)
