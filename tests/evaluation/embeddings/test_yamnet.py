import numpy as np
import pytest
import torch
from embedding_weights import reference_log_mel, refuse_network, sounds
from tolerances import FLOAT32
from torch.nn.functional import conv2d, pad
from yamnet_weights import EPSILON, layers, write_keras, write_onnx, yamnet_weights

from bsa_lightning.common.errors import UserError
from bsa_lightning.evaluation.embeddings.audioset_names import class_names, named_classes
from bsa_lightning.evaluation.embeddings.yamnet import PUBLISHED, YAMNet
from bsa_lightning.evaluation.measures import Measures
from bsa_lightning.evaluation.metrics.kernel import NoValueError
from bsa_lightning.evaluation.row_store import ClipRows


@pytest.fixture(scope="module")
def weights():
    return yamnet_weights()


@pytest.fixture(scope="module")
def file(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("yamnet") / "random.h5"
    write_keras(path, weights)
    return path


@pytest.fixture(scope="module")
def embedding(file):
    return YAMNet(file)


def reference_patches(wave):
    """With the silence that completes the last patch, as in TensorFlow's pad_waveform."""
    extra = max(0, 15_600 - len(wave)) or -(len(wave) - 15_600) % 7680
    log_mel = reference_log_mel(np.pad(wave.double().numpy(), (0, extra)), offset=0.001)
    return np.stack([log_mel[i : i + 96] for i in range(0, len(log_mel) - 95, 48)])


def reference_network(weights, patches):
    """Layer by layer, in float64: TensorFlow's "same" padding by its own rule, and norms after their convolutions."""
    x = torch.as_tensor(patches, dtype=torch.float64)[:, None]
    for layer in layers():
        is_depthwise = "depthwise" in layer
        kernel = torch.from_numpy(weights[f"{layer}/{'depthwise_kernel' if is_depthwise else 'kernel'}"]).double()
        stride = 2 if layer.split("/")[0] in ("layer1", "layer3", "layer5", "layer7", "layer13") else 1
        stride = 1 if "pointwise" in layer else stride
        size = kernel.shape[0]
        total = [max(0, (-(-n // stride) - 1) * stride + size - n) for n in x.shape[2:]]
        x = pad(x, (total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2))
        order, groups = ((2, 3, 0, 1), x.shape[1]) if is_depthwise else ((3, 2, 0, 1), 1)
        x = conv2d(x, kernel.permute(order), stride=stride, groups=groups)
        beta, mean, variance = (
            torch.from_numpy(weights[f"{layer}/bn/{part}"]).double()[:, None, None]
            for part in ("beta", "moving_mean", "moving_variance")
        )
        x = ((x - mean) / (variance + EPSILON).sqrt() + beta).clamp(min=0)
    rows = x.mean((2, 3))
    return rows, rows @ torch.from_numpy(weights["dense/kernel"]).double() + torch.from_numpy(weights["dense/bias"])


@pytest.mark.parametrize("num_samples", [8_000, 15_600, 15_601, 31_000])
@pytest.mark.parametrize("which", range(3), ids=["noise", "tone", "clicks"])
def test_patches_are_tensorflows(embedding, which, num_samples):
    wave = sounds(num_samples)[which]
    ours = embedding.patches(wave[None])[0]
    np.testing.assert_allclose(ours.numpy(), reference_patches(wave), rtol=0, atol=1e-5)


def test_rows_and_logits_are_those_of_the_files_network(embedding, weights):
    waves = sounds(24_000)
    found = embedding(waves)
    for wave, rows, logits in zip(waves, found.rows, found.logits, strict=True):
        expected_rows, expected = reference_network(weights, reference_patches(wave))
        size = expected_rows.max()
        torch.testing.assert_close(rows.double() / size, expected_rows / size, **FLOAT32)
        torch.testing.assert_close(logits.double().sigmoid(), expected.sigmoid().mean(0), **FLOAT32)
    assert torch.cdist(found.rows[:, 0], found.rows[:, 0])[~torch.eye(3, dtype=bool)].min() > 0.1 * size


def test_logits_are_finite_where_probabilities_round_to_one(embedding, monkeypatch):
    monkeypatch.setattr(embedding.network.classifier, "bias", torch.nn.Parameter(torch.full((521,), 200.0)))
    assert embedding(sounds(16_000)).logits.isfinite().all()


@pytest.mark.parametrize("num_samples", [1, 15_599, 15_600, 15_601, 23_280, 23_281, 160_000])
def test_the_number_of_rows_is_known_beforehand(embedding, num_samples):
    assert embedding.patches(torch.zeros(1, num_samples)).shape[1] == embedding.num_rows(num_samples)


@pytest.mark.parametrize("style", ["folded", "norms", "factors", "halves", "integers"])
def test_onnx_has_the_same_numbers(embedding, weights, tmp_path, style):
    write_onnx(tmp_path / "network.onnx", weights, style=style)
    other = YAMNet(tmp_path / "network.onnx").network.state_dict()
    for name, ours in embedding.network.state_dict().items():
        coarse = style == "integers" and name.startswith("conv") and name.endswith("weight")
        step = ours.abs().amax((1, 2, 3), keepdim=True) / 127 if coarse else 0
        rounding = 2**-11 if style == "halves" else 1e-6
        assert ((other[name] - ours).abs() <= step / 2 + rounding * ours.abs().max()).all(), name


@pytest.mark.parametrize("kind", [{"dense": "logits"}, {"inside": "model_weights/"}], ids=["logits", "whole model"])
def test_other_keras_files_have_the_same_numbers(embedding, weights, tmp_path, kind):
    write_keras(tmp_path / "other.h5", weights, **kind)
    other = YAMNet(tmp_path / "other.h5").network.state_dict()
    assert all(torch.equal(other[name], ours) for name, ours in embedding.network.state_dict().items())


def test_fingerprint_changes_with_either_file(weights, tmp_path):
    path = tmp_path / "network.onnx"
    write_onnx(path, weights, style="integers")
    before = YAMNet(path).fingerprint
    data = path.with_suffix(".data")
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    assert before != YAMNet(path).fingerprint
    assert before.split("-")[:3] == YAMNet(path).fingerprint.split("-")[:3]


def test_it_is_frozen_and_touches_no_network(file, monkeypatch):
    refuse_network(monkeypatch)
    embedding = YAMNet(file).train()
    assert not any(module.training for module in embedding.modules())
    assert not any(weight.requires_grad for weight in embedding.parameters())


def test_a_missing_file_is_named_with_its_source(tmp_path):
    with pytest.raises(UserError, match=r"gone\.onnx.*put yamnet\.h5 from https://github\.com/tensorflow/models"):
        YAMNet(tmp_path / "gone.onnx")


def test_a_published_name_stands_for_the_published_bytes(file, tmp_path):
    (tmp_path / PUBLISHED.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="damaged or another file"):
        YAMNet(tmp_path)


def lacking(path, weights):
    write_keras(path, {name: array for name, array in weights.items() if name != "layer5/depthwise_conv/bn/beta"})


def of_other_shape(path, weights):
    write_keras(path, weights | {"dense/bias": np.zeros(527, np.float32)})


def without_data(path, weights):
    write_onnx(path, weights, style="integers")
    path.with_suffix(".data").unlink()


def elsewhere(path, weights):
    (path.parent / "inner").mkdir()
    write_onnx(path.parent / "inner" / "a.onnx", weights, style="integers")
    content = (path.parent / "inner" / "a.onnx").read_bytes().replace(b"a.data", b"../b.d")
    path.write_bytes(content)
    (path.parent.parent / "b.d").write_bytes(b"")


def of_other_network(path, weights):
    write_onnx(path, weights)
    path.write_bytes(path.read_bytes().replace(b"Conv", b"Cons", 1))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lacking, r"holds other weights: it lacks layer5/depthwise_conv/bn/beta; put yamnet\.h5"),
        (of_other_shape, r"its classifier\.bias is \(527,\), not \(521,\)"),
        (without_data, r'its numbers are in "file\.data", which is not a file beside it'),
        (elsewhere, r'its numbers are in "\.\./b\.d", which is not a file beside it'),
        (
            of_other_network,
            "it has 26 convolutions with known weights and 1 classifiers of 521 classes where YAMNet",
        ),
        (lambda path, _: path.write_bytes(b"<html>404</html>"), "not a whole file of weights"),
        (lambda path, _: path.write_bytes(b""), "it has no nodes"),
        (lambda path, _: path.write_bytes(b"\x89HDF\r\n\x1a\n"), "not a whole file of weights"),
    ],
)
def test_a_wrong_file_is_refused(weights, tmp_path, write, message):
    write(tmp_path / "file.any", weights)
    with pytest.raises(UserError, match=message):
        YAMNet(tmp_path / "file.any")


@pytest.mark.parametrize(
    ("caption", "names"),
    [
        ("A dog barks twice", ["Dog", "Bark", "Canidae, dogs, wolves"]),
        ("A baby cries", ["Crying, sobbing", "Baby cry, infant cry"]),
        ("Rain falling outdoors", ["Rain"]),
        ("Someone sneezing once in a quiet room", ["Sneeze"]),
        ("Waves roll in", ["Waves, surf", "Roll"]),
        ("A low hum of 200 Hz", ["Humming", "Hum"]),
        ("Something happens", []),
    ],
)
def test_captions_name_classes_by_their_words(caption, names):
    assert [class_names()[i] for i in named_classes(caption)] == names


def test_class_agreement_is_that_of_clips(embedding):
    dog, rain, wind = (class_names().index(name) for name in ("Dog", "Rain", "Wind"))
    logits = torch.zeros(4, 521, dtype=torch.float64)
    logits[0, [dog, rain]] = torch.tensor([9.0, 8.0], dtype=torch.float64)
    logits[1, range(100, 105)], logits[1, rain] = 9.0, 8.0  # the sixth
    logits[2, wind] = 9.0
    captions = embedding.text(["A dog barks", "Rain falls", "The wind howls", "Something happens"])
    rows = ClipRows(torch.arange(4), torch.full((4,), 2), torch.zeros(8, 1024, dtype=torch.float64), logits)
    measures = Measures(embedding, rows, captions=captions)
    assert measures.caption_score(rows) == pytest.approx(2 / 3)
    assert measures.caption_score(rows.at(torch.tensor([0, 3]))) == 1
    with pytest.raises(NoValueError, match="no caption names a class of AudioSet"):
        measures.caption_score(rows.at(torch.tensor([3])))
