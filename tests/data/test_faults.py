"""Every kind of wrong list, sound and store is one sentence; the odd ones that are good are read right."""

import shutil
from random import Random

import pytest
from data_faults import GOOD_LISTS, GOOD_SOUNDS, GOOD_STORES, LISTS, SOUNDS, STORES

from bsa_lightning.common.errors import UserError


def refused(build, folder, seed=0):
    """The sentence."""
    case = build(folder, Random(seed))
    with pytest.raises(UserError) as error:
        case.read()
    text = str(error.value)
    assert "\n" not in text
    assert not text.endswith((".", " "))
    return text


@pytest.mark.parametrize("name", LISTS)
def test_a_wrong_list_is_refused(tmp_path, name):
    refused(LISTS[name], tmp_path)


@pytest.mark.parametrize("name", GOOD_LISTS)
def test_a_good_list_is_read(tmp_path, name):
    case = GOOD_LISTS[name](tmp_path, Random(0))
    assert case.read() == case.expected


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", SOUNDS)
def test_a_wrong_sound_is_refused_by_name(tmp_path, name, seed):
    assert str(tmp_path / "audio" / "x.") in refused(SOUNDS[name], tmp_path, seed)


@pytest.mark.parametrize("name", GOOD_SOUNDS)
def test_a_good_sound_is_read(tmp_path, name):
    case = GOOD_SOUNDS[name](tmp_path, Random(0))
    assert case.read() == case.expected


@pytest.fixture
def store(latents_folder, tmp_path):
    return shutil.copytree(latents_folder, tmp_path / "store")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", STORES)
def test_a_damaged_store_is_refused_by_name(store, name, seed):
    assert str(store) in refused(STORES[name], store, seed)


@pytest.mark.parametrize("name", GOOD_STORES)
def test_a_good_store_is_read(store, name):
    case = GOOD_STORES[name](store, Random(0))
    assert case.read() == case.expected == 24
