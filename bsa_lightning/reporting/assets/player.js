"use strict";
// One sound at a time, keys within a caption, and the switches.
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const one = (selector, root = document) => root.querySelector(selector);

const player = (() => {
  const STEP = 0.5; // seconds that an arrow key moves
  let playing = null; // the audio element that sounds, or none

  function pause() {
    if (playing) playing.pause();
  }

  /** Plays `audio` from where it stands, after whatever sounded has stopped. */
  function play(audio) {
    if (playing && playing !== audio) pause();
    playing = audio;
    return audio.play().catch(() => { if (playing === audio && audio.paused) playing = null; });
  }

  function toggle(audio) {
    return audio.paused ? play(audio) : audio.pause();
  }

  const parts = new Map(all(".row").map((row) => [row, {
    button: one(".play", row), audio: one("audio", row), head: one(".head", row), time: one("time", row),
    picture: one(".picture", row), whole: one("time", row).textContent,
  }]));

  function show(row) {
    const { audio, head, time, whole } = parts.get(row);
    const begun = audio.currentTime > 0 && !audio.ended;
    row.classList.toggle("begun", begun);
    head.style.left = `${100 * audio.currentTime / (audio.duration || 1)}%`;
    time.textContent = begun ? `${audio.currentTime.toFixed(1)} / ${whole}` : whole;
  }

  function follow(row) {
    show(row);
    if (!parts.get(row).audio.paused) requestAnimationFrame(() => follow(row));
  }

  /** Moves to `seconds`; a sound that was never loaded has to be first. */
  function seek(row, place) {
    const { audio } = parts.get(row);
    const move = () => {
      audio.currentTime = Math.max(0, Math.min(place(audio), audio.duration - 0.01));
      show(row);
    };
    if (audio.readyState > 0) return move();
    audio.addEventListener("loadedmetadata", move, { once: true });
    audio.load();
  }

  const visible = (card) => all(".row", card).filter((row) => !row.hidden);

  /** One tab stop a caption: the button that had the focus last, or the first. */
  function stop(row) {
    all(".play", row.closest(".card")).forEach((button) => { button.tabIndex = -1; });
    parts.get(row).button.tabIndex = 0;
  }

  function keys(event) {
    const row = event.target.closest(".row");
    if (!row || event.altKey || event.ctrlKey || event.metaKey) return;
    const rows = visible(row.closest(".card"));
    const at = rows.indexOf(row);
    const goal = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
    const way = { ArrowLeft: -STEP, ArrowRight: STEP }[event.key];
    if (goal === undefined && way === undefined) return;
    event.preventDefault();
    if (way !== undefined) return seek(row, (audio) => audio.currentTime + way);
    const next = rows[goal];
    if (!next || next === row) return;
    const sounded = !parts.get(row).audio.paused;
    stop(next);
    parts.get(next).button.focus();
    if (sounded) {
      parts.get(next).audio.currentTime = 0;
      play(parts.get(next).audio);
    }
  }

  for (const [row, { button, audio, picture }] of parts) {
    const name = row.dataset.name;
    button.addEventListener("click", () => { stop(row); toggle(audio); });
    audio.addEventListener("play", () => {
      button.setAttribute("aria-pressed", "true");
      button.setAttribute("aria-label", `Pause ${name}`);
      follow(row);
    });
    const silent = () => {
      if (playing === audio) playing = null;
      button.setAttribute("aria-pressed", "false");
      button.setAttribute("aria-label", `Play ${name}`);
      show(row);
    };
    audio.addEventListener("pause", silent);
    audio.addEventListener("ended", silent);
    picture.addEventListener("click", (event) => {
      const box = picture.getBoundingClientRect();
      seek(row, (sound) => sound.duration * (event.clientX - box.left) / box.width);
      play(audio);
    });
  }

  function showSystems() {
    const shown = new Set(all("#systems input:checked").map((box) => box.dataset.shows));
    for (const [row, { audio }] of parts) {
      row.hidden = !shown.has(row.dataset.system);
      if (row.hidden) audio.pause();
    }
    all(".card").forEach((card) => {
      const rows = visible(card);
      if (rows.length) stop(rows.find((row) => parts.get(row).button.tabIndex === 0) || rows[0]);
    });
  }

  all("#systems input").forEach((box) => box.addEventListener("change", showSystems));
  all("#views input").forEach((box) => box.addEventListener("change", () => {
    document.body.classList.toggle(`no-${box.value}`, !box.checked);
  }));
  document.addEventListener("keydown", keys);
  if (parts.size) showSystems(); // browsers restore ticks on a reload

  return { play, pause, toggle, visible };
})();

(() => {
  const KEY = "bsa-lightning-theme";
  function choose(theme) {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  }
  let kept = "auto";
  try { kept = localStorage.getItem(KEY) || "auto"; } catch { /* a page from a file may have no storage */ }
  all("#theme input").forEach((radio) => {
    radio.checked = radio.value === kept;
    radio.addEventListener("change", () => {
      choose(radio.value);
      try { localStorage.setItem(KEY, radio.value); } catch { /* as above */ }
    });
  });
  choose(kept);
})();

// A table that goes on beyond the edge says so, until it is scrolled to its end.
all(".wide").forEach((box) => {
  const hint = box.previousElementSibling;
  const mark = () => {
    box.classList.toggle("more", box.scrollWidth - box.clientWidth - box.scrollLeft > 1);
    if (hint && hint.classList.contains("hint")) hint.hidden = box.scrollWidth - box.clientWidth <= 1;
  };
  box.addEventListener("scroll", mark, { passive: true });
  new ResizeObserver(mark).observe(box);
});
