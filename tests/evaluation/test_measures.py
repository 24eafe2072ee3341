import re

import pytest
import torch
from frechet_rows import features, store_of
from tolerances import IDENTITY

from bsa_lightning.evaluation.embeddings.base import Embedding
from bsa_lightning.evaluation.embeddings.log_mel import LogMelStatistics
from bsa_lightning.evaluation.measures import Measures, expected_rows, needs_many, too_few_reason
from bsa_lightning.evaluation.metrics.divergence import (
    clap_score,
    inception_score,
    kl_divergence,
    kl_divergence_sigmoid,
)
from bsa_lightning.evaluation.metrics.frechet import frechet_distance_of_rows
from bsa_lightning.evaluation.metrics.kernel import KernelDistance, as_kadtk
from bsa_lightning.evaluation.paired_differences import resample_all
from bsa_lightning.evaluation.row_store import ClipRows


class Learnt(Embedding):
    """A classifier of four numbers."""

    name, metric, fingerprint = "net", "fd_net", "net-1"
    sample_rate, num_features, is_classifier = 16_000, 4, True

    def forward(self, waveform):
        return features(range(len(waveform)))


class LearntOfCaptions(Learnt):
    """And one that reads captions."""

    caption_metric = "net_score"

    def text(self, captions):
        return torch.zeros(len(captions), 4)

    def judge(self, rows, captions):
        return clap_score(rows, captions)


REFERENCE, GENERATED = list(range(60)), list(range(3, 33))


def test_all_of_a_pass_in_the_order_of_columns():
    reference, generated = (
        store_of(clips, seed, logits=True).compute() for seed, clips in enumerate((REFERENCE, GENERATED))
    )
    captions = torch.randn(60, 4)
    found = Measures(LearntOfCaptions(), reference, captions=captions, at_infinity=True, kadtk=True)(generated)
    distances, divergences = ["fd_net", "kad_net", "kadtk_net"], ["kl_net", "kl_sigmoid_net"]
    assert list(found) == [*distances, *divergences, "is_net", "net_score", "fd_net_inf", "fd_net_inf_r2"]
    expected = {
        "fd_net": frechet_distance_of_rows(reference.rows, generated.rows),
        "kad_net": KernelDistance(reference.rows, torch.arange(120) // 2)(generated.rows, torch.arange(60) // 2 + 3),
        "kadtk_net": as_kadtk(reference.rows, generated.rows),
        "kl_net": kl_divergence(reference.logits[3:33], generated.logits),
        "kl_sigmoid_net": kl_divergence_sigmoid(reference.logits[3:33], generated.logits),
        "is_net": inception_score(generated.logits),
        "net_score": clap_score(generated.rows, captions[3:33].repeat_interleave(2, 0)).mean(),
    }
    for name, value in expected.items():
        torch.testing.assert_close(found[name], float(value), **IDENTITY)


def test_halves_are_dealt_out_to_splits_of_as_many_clips_as_the_whole():
    """A score depends on the clips in a split: at most their number."""
    reference, generated = (store_of(clips, logits=True).compute() for clips in (REFERENCE, list(range(40))))
    measure = Measures(Learnt(), reference).by_name(generated)["is_net"]
    assert measure(generated) == float(inception_score(generated.logits))
    half = generated.at(torch.arange(0, 40, 2))
    assert measure(half) == float(inception_score(half.logits, num_splits=5))


def test_a_distance_at_infinity_of_too_few_is_left_out_and_named():
    reference, generated = (store_of(clips).compute() for clips in (REFERENCE, list(range(15))))
    measures = Measures(LogMelStatistics(), reference, at_infinity=True)
    assert list(measures(generated)) == ["fd_logmel", "kad_logmel"]
    assert measures.left_out["fd_logmel_inf"].startswith("15 clips with 30 rows of 4 numbers")


def test_nothing_pairs_clips_that_are_not_paired():
    reference, generated = (store_of(clips, logits=True).compute() for clips in (REFERENCE, GENERATED))
    assert list(Measures(Learnt(), reference)(generated, paired=False)) == ["fd_net", "kad_net", "is_net"]


def test_a_system_that_is_the_reference_is_at_zero():
    reference = store_of(REFERENCE, logits=True).compute()
    found = Measures(Learnt(), reference)(reference)
    assert found["fd_net"] == pytest.approx(0, abs=1e-10)
    assert found["kl_net"] == pytest.approx(0, abs=1e-5)  # 1e-6 is added to each class
    assert found["kad_net"] == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize(("num_clips", "num_rows"), [(9, 18), (24, 48)])
def test_distances_of_too_few_clips_are_left_out_of_learnt_embeddings_alone(num_clips, num_rows):
    reference, few = (store_of(REFERENCE[:n], logits=True).compute() for n in (60, num_clips))
    message = f"{num_clips} {{}} clips ({num_rows} rows) say nothing about a distribution; score at least 10 clips"
    for side, (real, made) in (("generated", (reference, few)), ("reference", (few, reference))):
        measures = Measures(Learnt(), real, at_infinity=True)
        assert list(measures(made)) == ["kl_net", "kl_sigmoid_net"]
        assert measures.left_out["fd_net"].startswith(message.format(side))
    assert Measures(LogMelStatistics(), reference)(few)["fd_logmel"] > 0


def test_few_clips_are_known_before_they_are_embedded():
    lengths = [(220_500, 44_100)] * 9  # 5 s, which are heard at 16 kHz
    embedding = Learnt()
    assert expected_rows(embedding, lengths) is None
    assert too_few_reason(num_clips=9, num_rows=None).startswith("9 clips say nothing about a distribution")
    embedding.num_rows = lambda num_samples: num_samples // 16_000
    assert expected_rows(embedding, lengths) == 45
    assert too_few_reason(num_clips=9, num_rows=45).startswith("9 clips (45 rows) say nothing")
    assert not too_few_reason(num_clips=10, num_rows=50)


def test_an_embedding_of_distances_alone_needs_many_clips():
    distances = Learnt()
    distances.is_classifier = False
    assert needs_many(distances, paired=True, captions=True)
    assert not needs_many(Learnt(), paired=True, captions=True)
    assert needs_many(Learnt(), paired=False, captions=True)
    assert not needs_many(LogMelStatistics(), paired=True, captions=True)


def test_divergences_are_of_the_pairs_and_distances_of_all():
    reference, generated = (store_of(range(first, first + 40), logits=True).compute() for first in (0, 10))
    found = Measures(Learnt(), reference)(generated)
    pairs = kl_divergence(reference.logits[10:], generated.logits[:30])
    torch.testing.assert_close(found["kl_net"], float(pairs), **IDENTITY)
    torch.testing.assert_close(
        found["fd_net"], float(frechet_distance_of_rows(reference.rows, generated.rows)), **IDENTITY
    )


def test_no_number_is_passed_on_that_is_none():
    reference = store_of(REFERENCE).compute()
    broken = ClipRows(reference.clips, reference.counts, reference.rows * 1e200)
    measures = Measures(Learnt(), reference)
    assert "fd_net" not in measures(broken)
    assert re.match(r"fd_net is (inf|nan); listen", measures.left_out["fd_net"])


def test_a_measure_without_a_value_is_left_out_and_named_and_the_others_stay(caplog):
    """Sound padded with silence: most rows of the reference are the same."""
    reference, generated = store_of(REFERENCE).compute(), store_of(GENERATED, 1).compute()
    rows = reference.rows.clone()
    rows[: 5 * len(rows) // 6] = rows[0]
    measures = Measures(Learnt(), ClipRows(reference.clips, reference.counts, rows))
    others = Measures(Learnt(), reference)
    found = measures(generated)
    assert found.keys() == others(generated).keys() - {"kad_net"}
    assert found["fd_net"] == float(frechet_distance_of_rows(rows, generated.rows))
    assert measures.distances(generated).keys() == {"fd_net"}
    assert "half of the pairs of rows of one side are alike" in measures.left_out["kad_net"]
    assert [record.getMessage()[:22] for record in caplog.records] == ["kad_net is left out: h"]
    assert resample_all([measures], {"net": generated}).keys() == found.keys()
