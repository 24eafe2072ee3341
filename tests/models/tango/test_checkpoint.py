"""Which file of a folder holds the network, and which bytes of it are whole."""

import json
import shutil
import types

import pytest
import torch
from safetensors.torch import save_file
from tango_checkpoint import write_checkpoint

from bsa_lightning.common.errors import UserError
from bsa_lightning.models.loading import load_parts
from bsa_lightning.models.tango.checkpoint import read_checkpoint
from bsa_lightning.models.tango.convert import convert_tango


@pytest.fixture(scope="module")
def original(tmp_path_factory, teacher_folder):
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("original") / "checkpoint"
    write_checkpoint(folder, tokenizer=AutoTokenizer.from_pretrained(teacher_folder / "tokenizer"))
    return folder


@pytest.fixture
def source(original, tmp_path):
    return shutil.copytree(original, tmp_path / "source")


@pytest.fixture
def trained(source):
    """As Accelerate leaves it: the network is one of many files, and the codec is elsewhere."""
    folder = source.parent / "epoch_3"
    folder.mkdir()
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    torch.save(torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0).state_dict(), folder / "scheduler.bin")
    torch.save(optimizer.state_dict(), folder / "optimizer.bin")
    torch.save(types.SimpleNamespace(rate=1.0), folder / "training_args.bin")
    torch.save({"encoder.weight": torch.ones(2)}, folder / "pytorch_model.bin")
    (folder / "random_states_0.pkl").write_bytes(b"code")
    shutil.copy(source / "main_config.json", folder)
    shutil.copytree(source / "words", folder / "words")
    shutil.copy(source / "pytorch_model_main.bin", folder / "pytorch_model_2.bin")
    return folder


def is_the_original(folder, source):
    weights = read_checkpoint(folder, source).unet
    expected = read_checkpoint(source, source).unet
    return weights.keys() == expected.keys() and all(torch.equal(weights[name], expected[name]) for name in weights)


def test_what_is_no_network_is_passed_over(trained, source):
    assert is_the_original(trained, source)


def test_a_network_in_safetensors_beside_it_is_the_same_one(trained, source):
    weights = torch.load(trained / "pytorch_model_2.bin", weights_only=True)
    save_file({name: tensor.clone() for name, tensor in weights.items()}, trained / "model.safetensors")
    assert is_the_original(trained, source)
    weights["unet.conv_in.bias"] += 1
    torch.save(weights, trained / "pytorch_model_2.bin")
    with pytest.raises(UserError, match=r"different unet\.\* weights in model\.safetensors and in pytorch_model_2"):
        read_checkpoint(trained, source)


def test_a_network_in_shards(trained, source, tmp_path):
    weights = torch.load(trained / "pytorch_model_2.bin", weights_only=True)
    (trained / "pytorch_model_2.bin").unlink()
    weight_map = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(sorted(weights))}
    for shard in set(weight_map.values()):
        held = {name: weights[name].clone() for name in weights if weight_map[name] == shard}
        save_file(held, trained / shard)
    (trained / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert is_the_original(trained, source)
    convert_tango(str(trained), tmp_path / "model", vae=str(source))
    load_parts(tmp_path / "model")
    (trained / "model-1.safetensors").unlink()
    with pytest.raises(UserError, match=r"lists model-1\.safetensors, which is not beside it"):
        read_checkpoint(trained, source)


@pytest.mark.parametrize("kept", ["shared", "encoder.embed_tokens"])
def test_safetensors_holds_one_tensor_under_one_of_its_names(trained, source, tmp_path, kept):
    weights = torch.load(trained / "pytorch_model_2.bin", weights_only=True)
    other = {"shared": "encoder.embed_tokens", "encoder.embed_tokens": "shared"}[kept]
    del weights[f"text_encoder.{other}.weight"]
    (trained / "pytorch_model_2.bin").unlink()
    save_file(weights, trained / "model.safetensors")
    convert_tango(str(trained), tmp_path / "model", vae=str(source))
    shared = load_parts(tmp_path / "model").conditioner.encoder.shared.weight
    assert torch.equal(shared, weights[f"text_encoder.{kept}.weight"])


def test_none_that_fits_is_said_with_what_was_looked_at(trained, source):
    (trained / "pytorch_model_2.bin").unlink()
    with pytest.raises(UserError) as caught:
        read_checkpoint(trained, source)
    sentence = str(caught.value)
    for words in (
        "no file with unet.* weights, such as pytorch_model_main.bin",
        "scheduler.bin contains something other than named weights",
        "optimizer.bin contains something other than named weights",
        "training_args.bin is not a file of weights",
        "pytorch_model.bin has none",
    ):
        assert words in sentence
    assert "\n" not in sentence


def test_the_folder_above_says_where_to_look(trained, source):
    shutil.copy(source / "main_config.json", trained.parent)
    with pytest.raises(UserError, match=r"there are such files in epoch_3, source, of which one may be meant"):
        read_checkpoint(trained.parent, source)


def change(path, name, edit):
    weights = torch.load(path, weights_only=True)
    weights[name] = edit(weights[name].clone())
    torch.save(weights, path)


def flip(path):
    """A bit of the weights themselves, which only the archive's checksum knows."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


MAIN, CODEC = "pytorch_model_main.bin", "pytorch_model_vae.bin"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: flip(f / MAIN), r"_main\.bin is not a file of weights \(.* has changed\); download it again"),
        (lambda f: flip(f / CODEC), r"_vae\.bin is not a file of weights \(.* has changed\); download it again"),
        (
            lambda f: change(f / MAIN, "unet.conv_in.bias", lambda tensor: tensor * float("nan")),
            r"UNet holds conv_in\.bias with values that are not finite",
        ),
        (
            lambda f: change(f / MAIN, "text_encoder.encoder.final_layer_norm.weight", lambda tensor: tensor / 0),
            r"text encoder holds encoder\.final_layer_norm\.weight with values",
        ),
        (
            lambda f: change(f / CODEC, "vocoder.conv_pre.bias", lambda tensor: tensor * float("inf")),
            r"vocoder holds conv_pre\.bias with values",
        ),
        (
            lambda f: change(f / CODEC, "decoder.conv_in.bias", lambda tensor: tensor.int()),
            r"autoencoder holds decoder\.conv_in\.bias as torch\.int32; name weights in floating point",
        ),
        (
            lambda f: change(f / MAIN, "text_encoder.shared.weight", lambda tensor: tensor + 1),
            r"different weights in|two different shared\.weight",
        ),
        (lambda f: change(f / MAIN, "unet.conv_in.weight", lambda _: torch.ones(())), "cannot be read as Tango's"),
        (lambda f: (f / MAIN).write_bytes(b""), r"_main\.bin is empty"),
        (lambda f: (f / MAIN).write_text("version https://git-lfs.github.com/spec/v1\n"), "is a pointer of git-lfs"),
        (lambda f: (f / "vae_config.json").write_text('{"scale_factor": NaN}'), "scale_factor is nan .* above 0"),
        (lambda f: (f / "vae_config.json").write_text('{"scale_factor": "1"}'), "scale_factor is 1 .* above 0"),
        (lambda f: (f / "vae_config.json").write_text('{"scale_factor": 1, "ddconfig": 2}'), "ddconfig .* not an obj"),
        (lambda f: (f / "main_config.json").write_text('{"text_encoder_name": 5}'), "text_encoder_name is 5"),
        (
            lambda f: (f / "main_config.json").write_text('{"unet_model_config_path": [1]}'),
            r"unet_model_config_path is \[1\]",
        ),
    ],
)
def test_damage_is_refused_before_anything_is_written(source, tmp_path, damage, message):
    damage(source)
    with pytest.raises(UserError, match=message):
        convert_tango(str(source), tmp_path / "new" / "model")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("dst", "message"),
    [
        ("dead", "dead exists already"),
        ("source/main_config.json", "main_config.json exists already"),
        ("source/main_config.json/model", "main_config.json is not a folder"),
        ("dead/model", "is a broken link"),
        ("/proc/model", "/proc cannot be written"),
    ],
)
def test_a_place_where_nothing_can_be_written_is_refused(source, tmp_path, dst, message):
    (tmp_path / "dead").symlink_to("nowhere")
    with pytest.raises(UserError, match=message):
        convert_tango(str(source), tmp_path / dst)


def test_a_card_of_another_encoding_is_no_hindrance(source, tmp_path):
    (source / "README.md").write_bytes("---\nlicense: mit\n---\nGeräusche".encode("latin-1"))
    convert_tango(str(source), tmp_path / "model")
    assert json.loads((tmp_path / "model" / "provenance.json").read_text())["licence"] == "mit"


def test_a_file_is_no_checkpoint(source, tmp_path):
    with pytest.raises(UserError, match=r"main_config\.json is a file; name the folder that it is in"):
        convert_tango(str(source / "main_config.json"), tmp_path / "model")


def test_a_full_disk_leaves_nothing(source, tmp_path, small_disk):
    small_disk(100_000)
    with pytest.raises(UserError, match=r"the disk of .* is full"):
        convert_tango(str(source), tmp_path / "model")
    small_disk(-1)
    assert not list(tmp_path.glob("*model*"))
