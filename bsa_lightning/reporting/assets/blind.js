// Blind comparison: pairs drawn from a seed, names hidden until the end, answers saved by download.
(() => {
  const dialog = one("#blind");
  if (!dialog) return;
  const form = one("form", dialog);
  const sides = { a: new Audio(), b: new Audio() };
  let session = null; // { seed, started, trials, answers }
  let heard = new Set();

  /** Uniform numbers in [0, 1) from a 32-bit seed (mulberry32): the same seed asks the same questions. */
  function generator(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let word = Math.imul(state ^ (state >>> 15), state | 1);
      word ^= word + Math.imul(word ^ (word >>> 7), word | 61);
      return ((word ^ (word >>> 14)) >>> 0) / 4294967296;
    };
  }

  function shuffled(list, random) {
    const copy = [...list];
    for (let i = copy.length - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [copy[i], copy[j]] = [copy[j], copy[i]];
    }
    return copy;
  }

  /** Every pair of systems comes once before any comes again, each time with another caption while there is one. */
  function draw(count, random) {
    const pairs = new Map();
    all(".card").forEach((card) => {
      const rows = player.visible(card);
      rows.forEach((first, i) => rows.slice(i + 1).forEach((second) => {
        const key = JSON.stringify([first.dataset.system, second.dataset.system]);
        const caption = one("h3", card).textContent;
        pairs.set(key, [...(pairs.get(key) || []), { caption, first, second }]);
      }));
    });
    const queues = shuffled([...pairs.values()], random).map((queue) => shuffled(queue, random));
    return Array.from({ length: queues.length ? count : 0 }, (_, i) => {
      const queue = queues[i % queues.length];
      const { caption, first, second } = queue[Math.floor(i / queues.length) % queue.length];
      return random() < 0.5 ? { caption, first, second, a: first, b: second } : { caption, first, second, a: second, b: first };
    });
  }

  function stage(name) {
    silence();
    all(".stage", dialog).forEach((part) => { part.hidden = part.dataset.stage !== name; });
  }

  function silence() {
    Object.values(sides).forEach((audio) => audio.pause());
  }

  function ask() {
    const trial = session.trials[session.answers.length];
    if (!trial) return finish();
    silence();
    heard = new Set();
    for (const side of ["a", "b"]) {
      sides[side].src = one("audio", trial[side]).src;
      one(`[data-side="${side}"]`, dialog).setAttribute("aria-pressed", "false");
    }
    one("#blind-caption").textContent = trial.caption;
    one("#blind-count").textContent = `${session.answers.length + 1} of ${session.trials.length}`;
    one("progress", dialog).value = session.answers.length / session.trials.length;
    allow();
    one('[data-side="a"]', dialog).focus();
  }

  function allow() {
    const ready = heard.size === 2;
    all("[data-choice]", dialog).forEach((button) => { button.disabled = !ready; });
    one("#blind-hint").style.visibility = ready ? "hidden" : "visible";
  }

  function listen(side) {
    const audio = sides[side];
    if (!audio.paused) return audio.pause();
    audio.currentTime = 0;
    player.play(audio);
  }

  function answer(choice) {
    const { caption, a, b } = session.trials[session.answers.length];
    session.answers.push({
      caption,
      a: a.dataset.system,
      b: b.dataset.system,
      choice,
      preferred: choice === "same" ? "" : (choice === "a" ? a : b).dataset.system,
    });
    ask();
  }

  /** Per pair, in the order of the page: how often the first, neither, the second was better. */
  function tally() {
    const counts = new Map();
    session.answers.forEach(({ preferred }, i) => {
      const { first, second } = session.trials[i];
      const key = JSON.stringify([first.dataset.system, second.dataset.system]);
      const count = counts.get(key) || {
        first: first.dataset.system, second: second.dataset.system, names: [first.dataset.name, second.dataset.name],
        first_better: 0, same: 0, second_better: 0,
      };
      count[preferred === "" ? "same" : preferred === count.first ? "first_better" : "second_better"] += 1;
      counts.set(key, count);
    });
    const order = all("#systems input").map((box) => box.dataset.shows);
    const place = ({ first, second }) => order.indexOf(first) * order.length + order.indexOf(second);
    return [...counts.values()].sort((one, other) => place(one) - place(other));
  }

  function finish() {
    stage("end");
    const n = session.answers.length;
    one("#blind-summary").textContent = n
      ? `${n} answer${n > 1 ? "s" : ""}, seed ${session.seed}. Save them before you close the page.`
      : "No answers yet.";
    one("#blind-tally").replaceChildren(...tally().map((count) => {
      const line = document.createElement("tr");
      [...count.names, count.first_better, count.same, count.second_better].forEach((value, i) => {
        const cell = document.createElement("td");
        cell.textContent = value;
        if (i > 1) cell.className = "number";
        line.append(cell);
      });
      return line;
    }));
    all('[data-do="json"], [data-do="csv"]', dialog).forEach((button) => { button.disabled = n === 0; });
  }

  function save(suffix, type, text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = `blind-${document.body.dataset.report.replace(/[^\w-]+/g, "-")}-${session.seed}.${suffix}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  function json() {
    const { seed, started, answers } = session;
    const counts = tally().map(({ names, ...count }) => count);
    save("json", "application/json",
      JSON.stringify({ report: document.body.dataset.report, seed, started, answers, tally: counts }, null, 2) + "\n");
  }

  function csv() {
    const columns = ["caption", "a", "b", "choice", "preferred"];
    const quoted = (value) => `"${String(value).replaceAll('"', '""')}"`;
    const lines = session.answers.map((row) => [...columns.map((name) => row[name]), session.seed].map(quoted).join(","));
    save("csv", "text/csv", [[...columns, "seed"].join(","), ...lines].join("\n") + "\n");
  }

  for (const [side, audio] of Object.entries(sides)) {
    const button = one(`[data-side="${side}"]`, dialog);
    audio.addEventListener("play", () => { heard.add(side); allow(); button.setAttribute("aria-pressed", "true"); });
    audio.addEventListener("pause", () => button.setAttribute("aria-pressed", "false"));
    button.addEventListener("click", () => listen(side));
  }
  one("#blind-open").addEventListener("click", () => {
    player.pause();
    form.elements.seed.value = Math.floor(Math.random() * 4294967296);
    one(".warning", form).hidden = true;
    stage("start");
    dialog.showModal();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const seed = Number(form.elements.seed.value);
    const trials = draw(Number(form.elements.count.value), generator(seed));
    one(".warning", form).hidden = trials.length > 0;
    if (!trials.length) return;
    session = { seed, started: new Date().toISOString(), trials, answers: [] };
    stage("trial");
    ask();
  });
  all("[data-choice]", dialog).forEach((button) => button.addEventListener("click", () => answer(button.dataset.choice)));
  const actions = { close: () => dialog.close(), finish, json, csv };
  all("[data-do]", dialog).forEach((button) => button.addEventListener("click", () => actions[button.dataset.do]()));
  dialog.addEventListener("close", silence);
  dialog.addEventListener("cancel", (event) => { // Escape must not throw answers away
    if (one('[data-stage="trial"]', dialog).hidden || !session.answers.length) return;
    event.preventDefault();
    finish();
  });
  dialog.addEventListener("keydown", (event) => {
    if (one('[data-stage="trial"]', dialog).hidden || event.repeat || event.altKey || event.ctrlKey || event.metaKey) return;
    const button = { a: '[data-side="a"]', b: '[data-side="b"]', 1: '[data-choice="a"]', 2: '[data-choice="same"]', 3: '[data-choice="b"]' }[event.key.toLowerCase()];
    if (button) one(button, dialog).click();
  });
})();
