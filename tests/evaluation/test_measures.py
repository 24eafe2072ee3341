import re

import pytest
import torch
from frechet_rows import features, store_of
from tolerances import IDENTITY

from bsa_lightning.errors import UserError
from bsa_lightning.evaluation.divergence import clap_score, inception_score, kl_divergence
from bsa_lightning.evaluation.embeddings import Embedding, LogMelStatistics
from bsa_lightning.evaluation.frechet import frechet_distance_of_rows
from bsa_lightning.evaluation.kernel import KernelDistance
from bsa_lightning.evaluation.measures import Measures
from bsa_lightning.evaluation.paired import compare
from bsa_lightning.evaluation.row_store import ClipRows


class Learnt(Embedding):
    """A classifier of four numbers."""

    name, metric, fingerprint = "net", "fd_net", "net-1"
    sample_rate, num_features = 16_000, 4

    def forward(self, waveform):
        return features(range(len(waveform)))


class Reading(Learnt):
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
    found = Measures(Reading(), reference, captions=captions, at_infinity=True)(generated)
    assert list(found) == ["fd_net", "kad_net", "kl_net", "is_net", "net_score", "fd_net_inf", "fd_net_inf_r2"]
    expected = {
        "fd_net": frechet_distance_of_rows(reference.rows, generated.rows),
        "kad_net": KernelDistance(reference.rows)(generated.rows),
        "kl_net": kl_divergence(reference.logits[3:33], generated.logits),
        "is_net": inception_score(generated.logits),
        "net_score": clap_score(generated.rows, captions[3:33].repeat_interleave(2, 0)).mean(),
    }
    for name, value in expected.items():
        torch.testing.assert_close(found[name], float(value), **IDENTITY)


def test_nothing_pairs_clips_that_are_not_paired():
    reference, generated = (store_of(clips, logits=True).compute() for clips in (REFERENCE, GENERATED))
    assert list(Measures(Learnt(), reference)(generated, paired=False)) == ["fd_net", "kad_net", "is_net"]


def test_a_system_that_is_the_reference_is_at_zero():
    reference = store_of(REFERENCE, logits=True).compute()
    found = Measures(Learnt(), reference)(reference)
    assert found["fd_net"] == pytest.approx(0, abs=1e-10)
    assert found["kl_net"] == 0
    assert found["kad_net"] < 0


@pytest.mark.parametrize(("num_clips", "num_rows"), [(9, 18), (24, 48)])
def test_hopeless_numbers_of_clips_are_refused_of_learnt_embeddings_alone(num_clips, num_rows):
    reference, few = store_of(REFERENCE).compute(), store_of(REFERENCE[:num_clips]).compute()
    message = rf"fd_net is of {num_clips} clips \({num_rows} rows\).* at least 10 clips and 50 rows"
    for sides in ((reference, few), (few, reference)):
        with pytest.raises(UserError, match=message):
            Measures(Learnt(), sides[0])(sides[1])
    assert Measures(LogMelStatistics(), reference)(few)["fd_logmel"] > 0


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
    assert "half of the pairs of reference rows are alike" in measures.left_out["kad_net"]
    assert [record.getMessage()[:22] for record in caplog.records] == ["kad_net is left out: h"]
    assert compare([measures], {"net": generated}, {"net": generated}).keys() == found.keys()
