"""Conversion: strict, exact in its counts, and answering every mistake."""

import json
import shutil

import pytest
import soundfile
import torch
from audioldm_models import edit
from ladder import data_of, module_of, trainer_of
from tango_checkpoint import write_checkpoint
from tolerances import FLOAT32
from toy_clips import ToyClips

from bsa_lightning.common.errors import UserError
from bsa_lightning.data.prepare import prepare_folder
from bsa_lightning.distillation.guidance_modes import Baked
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.generation.wav_writer import WavWriter
from bsa_lightning.models.conversion import FLAN_T5_LARGE
from bsa_lightning.models.loading import load_codec, load_conditioner, load_denoiser, load_parts
from bsa_lightning.models.tango import shapes
from bsa_lightning.models.tango.convert import convert_tango


@pytest.fixture(scope="module")
def tokenizer(teacher_folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(teacher_folder / "tokenizer")


@pytest.fixture(scope="module")
def original(tmp_path_factory, tokenizer):
    """A checkpoint in the original layout, and the networks that it was written from."""
    folder = tmp_path_factory.mktemp("original") / "checkpoint"
    return folder, write_checkpoint(folder, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def converted(original, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted") / "model"
    convert_tango(str(original[0]), folder)
    return folder


def test_every_weight_arrives_in_its_place(original, converted):
    """Outputs of the networks that another layout, other widths and another seed came from."""
    unet, vae, vocoder, text_encoder = original[1]
    teacher = load_parts(converted)
    pairs = [
        (unet, teacher.denoiser.unet),
        (vae, teacher.codec.vae),
        (vocoder, teacher.codec.vocoder),
        (text_encoder, teacher.conditioner.encoder),
    ]
    for source, arrived in pairs:
        weights = arrived.state_dict()
        assert weights.keys() == source.state_dict().keys()
        assert all(torch.equal(tensor, weights[name]) for name, tensor in source.state_dict().items())
    with torch.no_grad():
        log_mel = torch.randn(1, 40, 64)
        torch.testing.assert_close(teacher.codec.vocoder(log_mel), vocoder(log_mel), **FLOAT32)
        z, states = torch.randn(1, 8, 16, 16), torch.randn(1, 5, 24)
        torch.testing.assert_close(teacher.denoiser.unet(z, 7, states).sample, unet(z, 7, states).sample, **FLOAT32)


def test_converted_folder_says_what_it_is(original, converted):
    teacher = load_parts(converted)
    assert (teacher.sampling.num_steps, teacher.sampling.scale()) == (200, 3.0)
    assert teacher.codec.latent_shape == (8, 256, 16)
    assert teacher.codec.num_samples == 163_840
    assert list(load_denoiser(converted).schedule.position(torch.tensor([1.0, 0.25]))) == [1000, 250]
    provenance = json.loads((converted / "provenance.json").read_text())
    assert provenance["source"] == "checkpoint"
    assert str(original[0].parent) not in (converted / "README.md").read_text()
    assert provenance["licence"] == "unknown"


def test_a_checkpoint_is_named_after_its_folder_however_that_is_written(original, tmp_path, monkeypatch):
    monkeypatch.chdir(original[0])
    convert_tango(".", tmp_path / "model")
    assert json.loads((tmp_path / "model" / "provenance.json").read_text())["name"] == "checkpoint"
    load_denoiser(tmp_path / "model")


def test_the_licence_of_the_source_is_carried_along(original, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(original[0], source)
    (source / "README.md").write_text("---\nlicense: cc-by-nc-sa-4.0\n---\n# A model\n")
    convert_tango(str(source), tmp_path / "model")
    assert "license: cc-by-nc-sa-4.0" in (tmp_path / "model" / "README.md").read_text()


def test_what_training_writes_converts_with_a_published_codec(original, converted, tmp_path):
    """train.py leaves numbered models, its arguments in a log, and no codec."""
    best = tmp_path / "saved" / "best"
    best.mkdir(parents=True)
    shutil.copy(original[0] / "pytorch_model_main.bin", best / "pytorch_model_2.bin")
    (best.parent / "summary.jsonl").write_text(json.dumps({"text_encoder_name": str(original[0] / "words")}) + "\n{}\n")
    with pytest.raises(UserError, match=r"no vae_config\.json; .* --vae"):
        convert_tango(str(best), tmp_path / "model")
    convert_tango(str(best), tmp_path / "model", vae=str(original[0]))
    for part in ("unet", "vae"):
        ours, theirs = (
            folder / part / "diffusion_pytorch_model.safetensors" for folder in (tmp_path / "model", converted)
        )
        assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize(
    ("network", "parameters"),
    [("unet", 865_933_768), ("text", 341_231_104), ("vae", 55_376_873), ("vocoder", 55_264_897)],
)
def test_the_full_tango_has_its_published_size(network, parameters):
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig, T5Config, T5EncoderModel

    weights = {
        f"encoder.down.{i}.block.{j}.conv1.weight": torch.empty(w, 1)
        for i, w in enumerate((128, 256, 512))
        for j in (0, 1)
    }
    weights |= {"encoder.conv_in.weight": torch.empty(128, 1), "post_quant_conv.weight": torch.empty(8, 1)}
    make = {
        "unet": lambda: UNet2DConditionModel.from_config(shapes.UNET),
        "text": lambda: T5EncoderModel(T5Config(**FLAN_T5_LARGE)),
        "vae": lambda: AutoencoderKL.from_config(shapes.vae_config({"scale_factor": 1.0}, weights)),
        "vocoder": lambda: SpeechT5HifiGan(SpeechT5HifiGanConfig(**shapes.VOCODER)),
    }
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in make[network]().parameters()) == parameters


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "main_config.json").unlink(), "is not a Tango checkpoint: it has no main_config"),
        (
            lambda f: (f / "pytorch_model_main.bin").unlink(),
            r"no file with unet\.\* weights, such as",
        ),
        (lambda f: (f / "pytorch_model_vae.bin").write_bytes(b"PK\x03\x04half"), "is not a file of weights"),
        (lambda f: (f / "vae_config.json").write_text("{}"), "has no scale_factor"),
        (lambda f: (f / "vae_config.json").write_text("{"), "cannot be read as JSON"),
        (lambda f: (f / "stft_config.json").write_text('{"hop_length": 256}'), "another .*hop_length"),
        (lambda f: (f / "main_config.json").write_text("[]"), "it holds no object"),
        (lambda f: _change(f / "pytorch_model_main.bin", drop="unet.conv_in.weight"), "lacks the weight conv_in"),
        (lambda f: _change(f / "pytorch_model_vae.bin", drop="vocoder.conv_pre.weight"), "lacks the weight conv_pre"),
        (lambda f: shutil.rmtree(f / "words"), "text_encoder is words, but no such folder"),
        (lambda f: (f / "words" / "tokenizer.json").unlink(), "has no tokenizer"),
        (
            lambda f: _change(f / "pytorch_model_main.bin", drop="unet.conv_out.bias"),
            "UNet does not fit .* 1 weights",
        ),
        (lambda f: _change(f / "pytorch_model_main.bin", add="group_in.0.weight"), "holds group_in"),
        (
            lambda f: _change(f / "pytorch_model_vae.bin", add="encoder.extra"),
            "autoencoder does not .* 1 are unexpected",
        ),
    ],
)
def test_damaged_checkpoints_are_refused_in_a_sentence(original, tmp_path, damage, message):
    source = tmp_path / "source"
    shutil.copytree(original[0], source)
    damage(source)
    with pytest.raises(UserError, match=message):
        convert_tango(str(source), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def _change(path, *, drop=None, add=None):
    weights = torch.load(path, weights_only=True)
    weights.pop(drop, None)
    if add:
        weights[add] = torch.zeros(1)
    torch.save(weights, path)


@pytest.mark.parametrize("src", ["tango2", "declare-lab/tango"])
def test_without_a_network_a_hub_id_says_what_to_download_and_where(src, tmp_path):
    with pytest.raises(UserError) as caught:
        convert_tango(src, tmp_path / "model")
    message = str(caught.value)
    assert f"hf download declare-lab/{src.split('/')[-1]} main_config.json" in message
    assert "pytorch_model_vae.bin --local-dir" in message
    assert "\n" not in message


def test_a_cache_that_holds_a_part_is_not_the_whole(monkeypatch, tmp_path):
    (tmp_path / "main_config.json").write_text("{}")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(UserError, match=r"cannot be fetched from the hub \(no pytorch_model_main.bin\)"):
        convert_tango("tango", tmp_path / "model")


def test_a_codec_from_the_hub_asks_for_no_network_of_another(original, tmp_path):
    with pytest.raises(UserError, match=r"hf download declare-lab/tango vae_config.json \S+_vae.bin --.* as --vae"):
        convert_tango(str(original[0]), tmp_path / "model", vae="tango")


def test_other_mistakes(original, converted, tmp_path):
    with pytest.raises(UserError, match="exists already"):
        convert_tango(str(original[0]), converted)
    with pytest.raises(UserError, match="is neither a folder nor a hub id"):
        convert_tango("nowhere", tmp_path / "model")


def test_codec_and_text_are_fingerprinted(converted, teacher_folder):
    assert load_codec(converted).fingerprint != load_codec(teacher_folder).fingerprint
    assert load_conditioner(converted).fingerprint != load_conditioner(teacher_folder).fingerprint


def test_a_vocoder_of_another_front_end_is_refused(converted, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(converted, folder)
    edit(folder / "vocoder" / "config.json", sampling_rate=48_000)
    with pytest.raises(UserError, match=r"vocoder/config\.json is damaged or was changed since it was written"):
        load_codec(folder)
    edit(folder / "provenance.json", files=None, sha256=None)
    with pytest.raises(UserError, match="makes 48000 Hz of 64 bands"):
        load_codec(folder)


@pytest.mark.slow
def test_a_ladder_of_three_rounds_runs_on_a_converted_folder(converted, tmp_path):
    """On clips of 0.64 seconds; a student makes sound, and so does its teacher."""
    folder = tmp_path / "model"
    shutil.copytree(converted, folder)
    edit(folder / "unet" / "config.json", sample_size=[16, 16])
    edit(folder / "provenance.json", files=None, sha256=None)
    prepare_folder(ToyClips(8), tmp_path / "latents", str(folder), batch_size=8, shard_size=8)
    module = module_of(folder, plan=Plan(8, 1, 1), guidance=Baked(3.0))
    trainer_of(tmp_path / "run").fit(module, data_of(tmp_path / "latents"))
    students = sorted((tmp_path / "run" / "rounds").iterdir())
    assert [student.name for student in students] == ["1-4steps", "2-2steps", "3-1steps"]
    for model, num_steps in ((folder, 2), (students[-1], None)):
        (path,) = WavWriter(str(model), num_steps=num_steps).write(tmp_path / "sounds", ["a dog barks"], [0])
        waveform, rate = soundfile.read(path)
        assert (len(waveform), rate) == (64 * 160, 16_000)
        assert waveform.any()


@pytest.mark.filterwarnings("ignore:.*low_cpu_mem_usage")
def test_a_converted_teacher_opens_in_diffusers_through_the_file_that_it_carries(converted, tmp_path, monkeypatch):
    from diffusers import DiffusionPipeline

    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    options = {"custom_pipeline": "pipeline", "trust_remote_code": True, "low_cpu_mem_usage": False}
    assert 'custom_pipeline="pipeline", trust_remote_code=True' in (converted / "README.md").read_text()
    pipeline = DiffusionPipeline.from_pretrained(converted, **options)
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 8, 8, 16, generator=torch.Generator().manual_seed(0))
    settings = {"num_inference_steps": 1, "latents": noise, "audio_length_in_s": 0.32}
    latents = pipeline("rain", output_type="latent", **settings).audios
    audio = pipeline("rain", output_type="pt", **settings).audios
    codec = load_codec(converted)
    assert type(codec.vocoder).__name__ == "SpeechT5HifiGan"
    assert torch.equal(audio, codec.decode(latents)[:, : round(0.32 * 16_000)])
