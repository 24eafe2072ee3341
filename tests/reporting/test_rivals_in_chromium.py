"""The page of a run with rivals: they are there, but do not crowd it; and tables that are wider than the window."""

from contextlib import closing

import pytest
from reporting.chromium import BINARY, Browser
from reporting.runs import SYSTEMS, sine, write_run, write_wav

from bsa_lightning.reporting.report import report


@pytest.mark.skipif(BINARY is None, reason="no Chromium on the PATH; apt-get install chromium")
def test_other_samplers_of_the_teacher_wait_to_be_switched_on(tmp_path):
    run = write_run(tmp_path / "run")
    write_wav(run / "samples" / "teacher-dpm-solver++-unguided-4steps" / "00-a-dog-barks.wav", sine(300.0))
    report([run], out=tmp_path / "out")
    with closing(Browser(tmp_path)) as page:
        page.window(400)
        page.open(tmp_path / "out" / "index.html")
        shown = "[...document.querySelectorAll('.card:first-child .row')].filter((row) => row.offsetParent).length"
        assert page.js(shown) == len(SYSTEMS)
        page.click("#systems summary")
        assert page.js("document.querySelector('#systems details').innerText").split("\n")[-1] == (
            "Teacher (DPM-Solver++, no guidance), 4 steps"
        )
        page.click("#systems details input")
        assert page.js(shown) == len(SYSTEMS) + 1


MORE = "[document.querySelector('#scores .wide').classList.contains('more'), !document.querySelector('.hint').hidden]"


@pytest.mark.skipif(BINARY is None, reason="no Chromium on the PATH; apt-get install chromium")
def test_a_table_that_goes_on_beyond_the_edge_says_so(tmp_path):
    report([write_run(tmp_path / "run")], out=tmp_path / "out")
    with closing(Browser(tmp_path)) as page:
        for width, goes_on in ((390, "true"), (1600, "false")):
            page.window(width)
            page.open(tmp_path / "out" / "index.html")
            page.wait(f"{MORE}.every((shown) => shown === {goes_on})")
            page.js("document.querySelector('#scores .wide').scrollLeft = 10000")
            page.wait(f"!{MORE}[0] && {MORE}[1] === {goes_on}")
