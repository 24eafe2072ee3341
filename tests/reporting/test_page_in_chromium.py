"""The page as a reader meets it."""

import csv
import json

import pytest
from reporting.chromium import BINARY, Browser
from reporting.runs import CAPTIONS, SYSTEMS, write_run

from bsa_lightning.reporting.report import report

pytestmark = pytest.mark.skipif(BINARY is None, reason="no Chromium on the PATH; apt-get install chromium")
NUM_SOUNDS = len(SYSTEMS) * len(CAPTIONS)
ROW = ".card:nth-child({}) .row:nth-child({})"
PLAYING = "[...document.querySelectorAll('audio')].map((audio, i) => audio.paused ? -1 : i).filter((i) => i >= 0)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A report, and the downloads beside it."""
    return tmp_path_factory.mktemp("chromium")


@pytest.fixture(scope="module")
def browser(folder):
    browser = Browser(folder)
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def report_page(folder):
    report([write_run(folder / "run")], out=folder / "out")
    return folder / "out" / "index.html"


@pytest.fixture
def page(browser, report_page):
    """The page, freshly opened; in the end it must have asked for nothing and complained of nothing."""
    browser.window(1600)
    browser.open(report_page)
    yield browser
    browser.js("localStorage.clear()")
    requests, complaints = browser.requests[:], browser.complaints[:]
    browser.requests.clear()
    browser.complaints.clear()
    assert requests == []
    assert complaints == []


def test_sounds_load(page):
    durations = page.js(
        "Promise.all([...document.querySelectorAll('audio')].map((audio) => new Promise((done, fail) => {"
        "audio.onloadedmetadata = () => done(audio.duration); audio.onerror = fail; audio.load(); })))"
    )
    assert durations == pytest.approx([1.5] * NUM_SOUNDS, abs=0.01)


def test_pictures_load(page):
    assert page.js("[...document.images].map((image) => image.naturalHeight)") == [64] * NUM_SOUNDS


def test_every_button_plays_and_one_sound_at_a_time(page):
    for i in range(NUM_SOUNDS):
        row = ROW.format(1 + i // len(SYSTEMS), 1 + i % len(SYSTEMS))
        page.click(f"{row} .play")
        page.wait(f"document.querySelector('{row} audio').currentTime > 0.02")
        assert page.js(PLAYING) == [i]
        pressed = "[...document.querySelectorAll('.play')].map((button) => button.getAttribute('aria-pressed'))"
        assert page.js(pressed) == ["true" if k == i else "false" for k in range(NUM_SOUNDS)]
    assert page.js(f"document.querySelector('{row} .play').getAttribute('aria-label')").startswith("Pause Student")
    page.click(f"{row} .play")
    assert page.js(PLAYING) == []


def test_a_sound_ends(page):
    row = ROW.format(1, 1)
    page.click(f"{row} .play")
    page.wait(f"document.querySelector('{row} audio').ended")
    page.wait(f"document.querySelector('{row} .play').getAttribute('aria-pressed') === 'false'")
    assert page.js(f"document.querySelector('{row} time').textContent") == "1.5 s"


def test_keys(page):
    focused = "document.activeElement.closest('.row')?.dataset.name"
    page.js("document.querySelector('#blind-open').focus()")
    for _ in range(len(SYSTEMS) + 1):  # the switches of systems, then the first caption
        page.press("Tab")
    assert page.js(focused) == "Reference"
    page.press(" ")
    page.wait(f"{PLAYING}.join() === '0'")
    page.press("ArrowDown")
    assert page.js(focused) == "Teacher (DDIM), 4 steps"
    page.wait(f"{PLAYING}.join() === '1' && document.querySelectorAll('audio')[1].currentTime > 0")
    page.press(" ")
    page.wait(f"{PLAYING}.length === 0")
    before = page.js("document.querySelectorAll('audio')[1].currentTime")
    page.press("ArrowRight")
    assert page.js("document.querySelectorAll('audio')[1].currentTime") == pytest.approx(before + 0.5, abs=0.02)
    page.press("End")
    assert page.js(focused) == "Student (bsa), 4 steps"
    page.press("ArrowDown")
    assert page.js(focused) == "Student (bsa), 4 steps"
    assert page.js(PLAYING) == []
    page.press("ArrowLeft")  # of a sound that was not loaded yet
    page.wait("document.querySelectorAll('audio')[2].readyState > 0")
    page.press("Tab")  # one stop a caption
    assert page.js("document.activeElement.closest('.card') === document.querySelector('.card:nth-child(2)')")


def test_a_click_on_the_picture_plays_from_there(page):
    row = ROW.format(2, 2)
    page.click(f"{row} .picture")
    page.wait(f"document.querySelector('{row} audio').currentTime > 0.75")
    assert page.js(PLAYING) == [len(SYSTEMS) + 1]
    assert page.js(f"document.querySelector('{row}').classList.contains('begun')")


def test_theme_switch(page, report_page):
    ground = "getComputedStyle(document.body).backgroundColor"
    seen = {}
    for scheme in ("light", "dark"):
        page.window(1600, scheme=scheme)
        for theme in ("auto", "light", "dark"):
            page.click(f"#theme input[value='{theme}']")
            seen[scheme, theme] = page.js(ground)
    light, dark = seen["light", "light"], seen["light", "dark"]
    assert light != dark
    assert seen == {
        (scheme, theme): light if "light" in (scheme if theme == "auto" else theme) else dark for scheme, theme in seen
    }
    page.open(report_page)  # the choice is kept
    assert page.js(ground) == dark
    assert page.js("document.querySelector('#theme input:checked').value") == "dark"


def test_picture_switches(page):
    shown = "['.wave', '.mel'].map((name) => document.querySelector(name).getBoundingClientRect().height > 0)"
    assert page.js(shown) == [True, True]
    page.click("#views input[value='waves']")
    assert page.js(shown) == [False, True]
    page.click("#views input[value='mels']")
    assert page.js(shown) == [False, False]
    page.click("#views input[value='waves']")
    assert page.js(shown) == [True, False]


def test_system_switches(page):
    shown = "[...document.querySelectorAll('.row')].filter((row) => row.offsetParent).map((row) => row.dataset.system)"
    page.click(f"{ROW.format(1, 2)} .play")
    page.wait(f"{PLAYING}.length === 1")
    page.click(f"#systems input[data-shows='{SYSTEMS[1]}']")
    assert page.js(shown) == [SYSTEMS[0], SYSTEMS[2]] * len(CAPTIONS)
    assert page.js(PLAYING) == []
    stops = "document.querySelectorAll('.card:nth-child({}) .row:not([hidden]) .play[tabindex=\"0\"]').length"
    assert [page.js(stops.format(card + 1)) for card in range(len(CAPTIONS))] == [1] * len(CAPTIONS)


def compare_blind(page, *, count, seed, answer="1"):
    """Goes through a comparison; the questions as (caption, sound A, sound B)."""
    page.click("#blind-open")
    page.js(f"document.querySelector('#blind form').elements.count.value = {count}")
    page.js(f"document.querySelector('#blind form').elements.seed.value = {seed}")
    page.click("#blind form .main")
    captions = []
    for i in range(count):
        assert page.js("document.querySelector('#blind-count').textContent") == f"{i + 1} of {count}"
        assert page.js("document.querySelector('#blind progress').value") == pytest.approx(i / count)
        text = page.js("document.querySelector('#blind [data-stage=trial]').innerText")
        assert not any(word in text for word in ("Teacher", "Student", "Reference"))
        captions.append(page.js("document.querySelector('#blind-caption').textContent"))
        page.press(answer)  # is not taken before both were heard
        for side in "ab":
            page.press(side)
            page.wait(f"document.querySelector('[data-side={side}]').getAttribute('aria-pressed') === 'true'")
        page.wait("document.querySelector('[data-side=a]').getAttribute('aria-pressed') === 'false'")
        page.wait("!document.querySelector('[data-choice=same]').disabled")
        page.press(answer)
    page.wait("document.querySelector('#blind-tally').offsetParent")
    return captions


def saved(page, folder, suffix, seed):
    path = folder / f"blind-run-{seed}.{suffix}"
    page.click(f"#blind [data-do={suffix}]")
    page.wait_for(lambda: path.is_file() and path.stat().st_size > 0)
    return path.read_text(encoding="utf-8")


def test_blind_answers_are_saved(page, folder):
    captions = compare_blind(page, count=4, seed=7)
    content = json.loads(saved(page, folder, "json", 7))
    assert (content["report"], content["seed"]) == ("run", 7)
    answers = content["answers"]
    assert [answer["caption"] for answer in answers] == captions
    assert all(answer["choice"] == "a" and answer["preferred"] == answer["a"] for answer in answers)
    # Three pairs: each once, then one again with the other caption.
    pairs = [frozenset((answer["a"], answer["b"])) for answer in answers]
    assert len(set(pairs)) == 3
    assert pairs[3] == pairs[0]
    assert captions[3] != captions[0]
    tally = {(row["first"], row["second"]): row for row in content["tally"]}
    assert sum(row["first_better"] + row["same"] + row["second_better"] for row in tally.values()) == 4
    for (first, second), row in tally.items():
        mine = [answer["preferred"] for answer in answers if {answer["a"], answer["b"]} == {first, second}]
        assert (row["first_better"], row["second_better"]) == (mine.count(first), mine.count(second))
    rows = list(csv.DictReader(saved(page, folder, "csv", 7).splitlines()))
    assert rows == [{**answer, "seed": "7"} for answer in answers]
    assert page.js("document.querySelectorAll('#blind-tally tr').length") == 3


def test_the_seed_decides_the_questions(page, folder, report_page):
    sides = []
    for seed, answer in ((11, "3"), (12, "2"), (11, "2")):
        page.open(report_page)
        (folder / f"blind-run-{seed}.json").unlink(missing_ok=True)
        compare_blind(page, count=6, seed=seed, answer=answer)
        content = json.loads(saved(page, folder, "json", seed))
        assert {given["choice"] for given in content["answers"]} == {{"3": "b", "2": "same"}[answer]}
        sides.append([(given["caption"], given["a"], given["b"]) for given in content["answers"]])
    assert sides[0] == sides[2]
    assert sides[0] != sides[1]
    assert len(set(sides[0])) == 6
    assert any(SYSTEMS.index(a) > SYSTEMS.index(b) for _, a, b in sides[0] + sides[1])


def test_blind_pairs_come_from_the_shown_systems(page):
    for system in SYSTEMS[:2]:
        page.click(f"#systems input[data-shows='{system}']")
    page.click("#blind-open")
    page.click("#blind form .main")
    assert page.js("document.querySelector('#blind .warning').offsetParent !== null")
    page.click("#blind [data-stage=start] [data-do=close]")
    assert not page.js("document.querySelector('#blind').open")


def test_escape_shows_the_answers_so_far(page):
    page.click("#blind-open")
    page.click("#blind form .main")
    page.press("a")
    page.press("b")
    page.wait("!document.querySelector('[data-choice=a]').disabled")
    page.press("1")
    page.press("Escape")
    assert page.js("document.querySelector('#blind-summary').textContent").startswith("1 answer,")
    page.click("#blind [data-stage=end] [data-do=close]")
    assert page.js(PLAYING) == []


OVERFLOWING = """[...document.querySelectorAll('body *')]
  .filter((element) => !element.closest('.wide, pre, svg, dialog:not([open])'))
  .filter((element) => element.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
  .map((element) => element.outerHTML.slice(0, 80))"""
CONTRASTS = """(() => {
  const shade = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const ground = (e) => { const c = shade(getComputedStyle(e).backgroundColor);
    return c[3] === 0 ? ground(e.parentElement) : c; };
  return [...document.querySelectorAll('body *')]
    .filter((e) => e.offsetParent && !e.disabled && !e.closest('.legend span, svg, audio'))
    .filter((e) => [...e.childNodes].some((node) => node.nodeType === 3 && node.data.trim())).map((e) => {
      const [a, b] = [light(shade(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
      return [(a + 0.05) / (b + 0.05), e.outerHTML.slice(0, 80)]; }).sort((x, y) => x[0] - y[0])[0]; })()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_nothing_overflows_and_all_can_be_read(page, width, scheme):
    page.window(width, scheme=scheme)
    page.js("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    assert page.js("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.js(OVERFLOWING) == []
    ratio, element = page.js(CONTRASTS)
    assert ratio >= 4.5, element
    page.click("#blind-open")
    assert page.js("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.js(OVERFLOWING) == []


def test_what_needs_a_name_has_one(page):
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "checkbox", "radio", "dialog", "image", "link", "region", "spinbutton", "article", "group")
    named = [(node["role"]["value"], node.get("name", {}).get("value")) for node in nodes if not node.get("ignored")]
    wanted = [(role, name) for role, name in named if role in roles]
    assert {"button", "checkbox", "radio", "link", "article", "image"} <= {role for role, _ in wanted}
    assert [role for role, name in wanted if not name] == []
    assert [name for role, name in wanted if role == "article"] == list(CAPTIONS)


def test_the_page_cannot_reach_out_and_the_watch_would_see_it(page):
    page.js("fetch('https://example.invalid/').catch(() => 0)")
    page.js("console.error('noticed')")
    page.js("1")
    assert any("Content Security Policy" in str(complaint) for complaint in page.complaints)
    assert any("noticed" in str(complaint) for complaint in page.complaints)
    page.complaints.clear()
    page.requests.clear()
