import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from bsa_lightning.common.errors import UserError
from bsa_lightning.data import latents
from bsa_lightning.data.latents import LatentReader


@pytest.fixture
def copied(latents_folder, tmp_path):
    return shutil.copytree(latents_folder, tmp_path / "store")


def test_a_flipped_byte_is_found(copied):
    LatentReader(copied).verify()
    path = copied / "shard-00001.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"shard-00001.safetensors is damaged"):
        LatentReader(copied).verify()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / latents.INDEX).unlink(), "holds no prepared latents"),
        (lambda folder: (folder / "shard-00000.safetensors").unlink(), "shard-00000.safetensors is missing"),
        (lambda folder: (folder / "shard-00000.safetensors").write_bytes(b"x"), "has 1 bytes where the index says"),
    ],
)
def test_a_store_that_is_not_whole_is_refused(copied, damage, message):
    damage(copied)
    with pytest.raises(UserError, match=message):
        LatentReader(copied)


def test_the_index_names_every_file_with_its_digest(latents_folder):
    index = json.loads((latents_folder / latents.INDEX).read_text())
    assert [file["num_clips"] for file in index["files"]] == [9, 9, 6]
    assert load_file(latents_folder / index["files"][0]["file"])["mean"].dtype == torch.float16


def test_what_is_said_of_sampling_is_an_object(copied):
    path = copied / latents.INDEX
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sampling": "by a teacher"}))
    with pytest.raises(UserError, match=r"is not an index of prepared latents \(its sampling is no object\)"):
        LatentReader(copied)


@pytest.mark.parametrize("name", ["shard-00001.safetensors", "shard-00001.json", "null.safetensors"])
@pytest.mark.parametrize("place", [0.01, 0.5, 0.99])
def test_a_flipped_bit_anywhere_is_found_by_name(copied, name, place):
    path = copied / name
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} is damaged; delete it and run lightning prepare again"):
        LatentReader(copied).verify()


def test_a_truncated_shard_is_refused_before_anything_is_read(copied):
    path = copied / "shard-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"shard-00002.safetensors has \d+ bytes where the index says \d+"):
        LatentReader(copied)


@pytest.mark.parametrize(
    "name",
    ["../shard-00000.safetensors", "/etc/shard.safetensors", "a/b.safetensors", "..", "", ".hidden.safetensors",
     "a\\b.safetensors", "shard-00000.json", "shard\n.safetensors", 7],
)  # fmt: skip
def test_an_index_cannot_name_a_file_elsewhere(copied, name):
    index = json.loads((copied / latents.INDEX).read_text())
    index["files"][0]["file"] = name
    (copied / latents.INDEX).write_text(json.dumps(index))
    with pytest.raises(
        UserError, match=r"index.json (names the file .* not the plain name|is not an index .*\(no file\))"
    ):
        LatentReader(copied)


def test_a_link_out_of_the_store_is_refused(copied, tmp_path):
    path = copied / "shard-00000.safetensors"
    path.rename(tmp_path / "elsewhere.safetensors")
    path.symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(UserError, match=r"shard-00000.safetensors is a link out of its folder"):
        LatentReader(copied)
    (tmp_path / "link").symlink_to(copied)
    path.unlink()
    (tmp_path / "elsewhere.safetensors").rename(path)
    assert len(LatentReader(tmp_path / "link")) == 24


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text[: len(text) // 2], "index.json cannot be read as JSON"),
        (lambda text: "[]", r"index.json cannot be read as JSON \(it holds no object\)"),
        (lambda text: text.replace('"codec"', '"kodek"'), r"is not an index of prepared latents \(no codec\)"),
        (
            lambda text: text.replace('"texts_sha256"', '"texts"'),
            r"is not an index of prepared latents \(no texts_sha256\)",
        ),
        (lambda text: text.replace('"format": 1', '"format": 2'), "has format 2, but this version reads 1"),
        (lambda text: text.replace('"num_clips": 24', '"num_clips": 25'), "says 25 clips"),
        (lambda text: "\udcff", "index.json cannot be read as JSON"),
    ],
)
def test_an_index_that_is_none_is_one_sentence(copied, spoil, message):
    path = copied / latents.INDEX
    path.write_text(spoil(path.read_text()), errors="surrogateescape")
    with pytest.raises(UserError, match=message):
        LatentReader(copied)
