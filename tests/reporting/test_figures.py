import math

import pytest
from matplotlib import image
from matplotlib.figure import Figure
from reporting.runs import write_scores

from bsa_lightning.evaluation.system_name import SystemName
from bsa_lightning.reporting import drawing, figure, snr
from bsa_lightning.reporting.results import REFERENCE, Result, read_results

HEADER = (
    "step,epoch,num_steps,train/loss,val/error_snr<0.1,val/error_snr<1,val/num_steps,val/loss_snr<0.1,val/loss_snr<1\n"
)


def result(metrics, *, num_steps=4, name="Student (bsa)"):
    return Result("student", "bsa", num_steps, "baked", 2.0, num_steps, 64, (0,), metrics, None, name)


def teacher(sampler, scale, *, nfe=8, metrics=None):
    steps = nfe if scale == 1 else nfe // 2
    name = SystemName("teacher", sampler=sampler, unguided=scale == 1).title
    return Result("teacher", "", steps, "outside", scale, nfe, 64, (0,), metrics or {}, None, name, sampler=sampler)


@pytest.mark.parametrize(("num_metrics", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (3, 1, 3), (5, 2, 3)])
def test_panels_in_rows(num_metrics, rows, columns, tmp_path):
    results = [result({f"metric_{i}": (1.0 + i, math.nan) for i in range(num_metrics)})]
    figure.draw(results, [tmp_path / "figure.png", tmp_path / "figure.svg"])
    height, width = image.imread(tmp_path / "figure.png").shape[:2]
    assert (height, width) == (int(160 * (3.4 * rows + 0.4)), int(160 * 4.4 * columns))
    assert (tmp_path / "figure.svg").read_bytes()[:5] == b"<?xml"
    assert len(figure.panels(results)) == num_metrics


def test_a_metric_of_the_references_alone_has_no_panel():
    """As with one caption, whose systems have no distance."""
    references = Result(REFERENCE, "", 0, "", 0.0, 0, 0, (0,), {"fd_logmel": (0.5, math.nan)}, None, "Clips")
    (panel,) = figure.panels([references, result({"trajectory_error": (0.1, math.nan)})])
    assert "rajectory error" in panel


def test_no_marker_touches_the_top():
    """Where values hardly differ, the room above them is a share of the axis, which begins at 0."""
    axes = Figure().add_subplot()
    figure._panel(
        axes, [result({"obedience": (mean, math.nan)}, num_steps=n) for n, mean in ((4, 0.9), (2, 0.91))], "obedience"
    )
    assert axes.get_ylim() == pytest.approx((0, 0.91 * 1.05))


def test_directions_are_written_out_and_r2_is_not_drawn():
    metrics = {"clap_score": (0.3, 0.1), "fd_logmel_inf": (1.0, 0.1), "fd_logmel_inf_r2": (0.9, 0.0)}
    score, distance = figure.panels([result(metrics)])
    assert "CLAP score, higher is better" in score
    assert "FD∞ log-mel, lower is better" in distance


def test_lines_are_told_apart():
    rivals = [teacher(sampler, scale) for sampler in ("ddim", "dpm-solver++") for scale in (3.0, 1.0)]
    students = [result({}, name=f"Student ({i})") for i in range(7)]
    drawn = figure.lines(rivals + students)
    assert [line.name for line in drawn] == [found.name for found in rivals + students]
    assert [(line.colour, line.style) for line in drawn[:4]] == [
        (drawing.INK, "--"),
        (drawing.PALE, "--"),
        (drawing.INK, "-."),
        (drawing.PALE, "-."),
    ]
    assert len({(line.colour, line.marker) for line in drawn}) == 11


def test_the_axis_is_of_network_evaluations():
    """A guided teacher of one step stands beside a student of two."""
    from matplotlib import pyplot as plt

    _, axes = plt.subplots()
    metrics = {"m": (1.0, 0.1)}
    figure._panel(axes, [teacher("ddim", 3.0, nfe=2, metrics=metrics), result(metrics, num_steps=2)], "m")
    found = [bar.lines[0].get_xdata().tolist() for bar in axes.containers]
    limits = axes.get_xlim()
    plt.close()
    assert found == [[2], [2]]
    assert limits[0] > limits[1]  # few evaluations stand on the right


@pytest.mark.parametrize(
    ("means", "log", "note"),
    [
        ([1.0, 2.0], False, ""),
        ([1.0, 20.0], True, "log axis"),
        ([0.0, 1.0, 20.0], True, "log axis, zeros left out"),
        ([0.0, 1.0], False, ""),
        ([-1.0, 20.0], False, ""),
    ],
)
def test_wide_ranges_are_logarithmic(means, log, note):
    results = [result({"m": (mean, 0.1)}, num_steps=2**i) for i, mean in enumerate(means)]
    svg = figure.panels(results)[0]
    assert (">log axis" in svg) == log
    assert f">{note}<" in svg or not note


def test_inline_drawings_take_the_page_over(tmp_path):
    svg = figure.panels(read_results([write_scores(tmp_path)]))[1]
    assert svg.startswith("<svg ")
    opening = svg[: svg.index(">")]
    assert "viewBox" in opening
    assert "width=" not in opening
    assert "height=" not in opening
    assert "currentColor" in svg
    assert drawing.INK not in svg
    assert "DejaVu" not in svg
    assert "<metadata" not in svg
    assert "FD log-mel, lower is better" in svg


@pytest.fixture
def logged(tmp_path):
    lines = ["9,0,4.0,0.1,,,,,", "59,1,,,0.3,0.1,4.0,0.6,0.2", "119,2,,,0.2,,2.0,0.5,0.0"]
    (tmp_path / "metrics.csv").write_text(HEADER + "\n".join(lines) + "\n")
    return tmp_path


def test_validations(logged):
    assert snr.read_validations(logged) == [
        snr.Validation(60, 4, {"<0.1": 0.3, "<1": 0.1}, {"loss": {"<0.1": 0.6, "<1": 0.2}}),
        snr.Validation(120, 2, {"<0.1": 0.2}, {"loss": {"<0.1": 0.5, "<1": 0.0}}),
    ]
    # Older runs log the steps with the training loss alone.
    path = logged / "metrics.csv"
    path.write_text(path.read_text().replace("val/num_steps", "other"))
    assert [validation.num_steps for validation in snr.read_validations(logged)] == [4, 4]


def test_snr_figure(logged, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    paths = [tmp_path / "snr.png", tmp_path / "snr.svg"]
    assert not snr.draw([bare], paths)
    assert not paths[0].exists()
    assert snr.draw([bare, logged], paths)
    assert paths[0].read_bytes()[:4] == b"\x89PNG"
    errors, shares = snr.panels(logged)
    assert "N=4" in errors
    assert "N=2" in shares
    assert snr.panels(bare) == []
    assert [name for _, name in snr.legend(logged)] == ["SNR below 0.1", "0.1 to 1"]


def test_shares_add_up(logged):
    from matplotlib import pyplot as plt

    _, axes = plt.subplots()
    snr._shares(axes, snr.read_validations(logged), "", "loss")
    heights = [[bar.get_height() for bar in bars] for bars in axes.containers]
    plt.close()
    assert heights == [pytest.approx([0.75, 1.0]), pytest.approx([0.25, 0.0])]
