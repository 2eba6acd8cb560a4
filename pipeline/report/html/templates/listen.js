
(() => {
  "use strict";
  const root = document.querySelector(".abx");
  if (!root || !window.AudioContext) return;
  const text = root.dataset;
  const find = (selector) => root.querySelector(selector);
  const [round, play, tally, again] = [".round", ".play", ".tally", ".again"].map(find);
  const choices = [...root.querySelectorAll("[data-version]")];
  const answers = [...root.querySelectorAll("[data-answer]")];
  const past = document.querySelector(".past");
  const pair = JSON.parse(text.pair), samples = JSON.parse(text.samples), rounds = Number(text.rounds);
  const storage = "listening " + pair.join(" ");

  let context = null, playing = null, starting = 0, heard = "a", over = false;
  let given = [], order = [], sample = null, x = "a";

  /* A number of chance below a limit; the page has no other use for numbers that can be guessed. */
  function drawn(limit) {
    const values = new Uint32Array(1);
    crypto.getRandomValues(values);
    return Math.floor(values[0] / 2 ** 32 * limit);
  }

  /* Every sample comes once before one comes again. */
  function nextRound() {
    if (!order.length) {
      order = samples.slice();
      for (let k = order.length - 1; k > 0; k -= 1) {
        const other = drawn(k + 1);
        [order[k], order[other]] = [order[other], order[k]];
      }
    }
    sample = order.pop();
    x = drawn(2) ? "a" : "b";
    round.textContent = text.round.replace("{number}", given.length + 1).replace("{all}", rounds).replace("{sample}", sample[0]);
    hear("a");
  }

  function hear(name) {
    heard = name;
    for (const button of choices) button.setAttribute("aria-pressed", button.dataset.version === name);
    if (!playing) return;
    const chosen = name === "x" ? x : name;
    for (const [version, gain] of playing.gains) {
      gain.gain.setTargetAtTime(version === chosen ? 1 : 0, context.currentTime, 0.004);
    }
  }

  async function decoded(address) {
    const answer = await fetch(address);
    if (!answer.ok) throw new Error(address + ": " + answer.status);
    return context.decodeAudioData(await answer.arrayBuffer());
  }

  async function start() {
    const own = ++starting;
    context = context || new AudioContext();
    context.resume();
    let buffers;
    try {
      buffers = await Promise.all([decoded(sample[1]), decoded(sample[2])]);
    } catch (error) {
      if (own === starting) tally.textContent = text.silent.replace("{reason}", error.message);
      return;
    }
    if (own !== starting) return;
    const length = Math.max(...buffers.map((buffer) => buffer.length));
    const when = context.currentTime + 0.02;
    playing = { gains: [], sources: [] };
    buffers.forEach((buffer, index) => {
      const padded = context.createBuffer(1, length, buffer.sampleRate);
      padded.copyToChannel(buffer.getChannelData(0), 0);
      const source = new AudioBufferSourceNode(context, { buffer: padded, loop: true });
      const gain = new GainNode(context, { gain: 0 });
      source.connect(gain).connect(context.destination);
      source.start(when);
      playing.sources.push(source);
      playing.gains.push(["ab"[index], gain]);
    });
    play.textContent = text.pause;
    hear(heard);
  }

  function stop() {
    starting += 1;
    if (playing) for (const source of playing.sources) source.stop();
    playing = null;
    play.textContent = text.play;
  }

  function toggle() { if (playing) stop(); else if (!over) start(); }

  function answer(name) {
    if (over) return;
    given.push({ sample: sample[0], x, answer: name });
    tally.textContent = "";
    const plays = playing !== null;
    stop();
    if (given.length === rounds) return finish();
    nextRound();
    if (plays) start();
  }

  /* Chance of at least so many right answers of n by guessing: the tail of a binomial distribution with p = 1/2. */
  function chance(right, n) {
    let ways = 1, tail = 0;
    for (let k = 0; k <= n; k += 1) {
      if (k >= right) tail += ways;
      ways = ways * (n - k) / (k + 1);
    }
    return tail / 2 ** n;
  }

  function percent(value) { return String(Number((100 * value).toPrecision(2))); }

  function setOver(value) {
    over = value;
    again.hidden = !value;
    for (const button of [play, ...choices, ...answers]) button.disabled = value;
  }

  function list(series) {
    const line = document.createElement("li");
    line.textContent = past.dataset.line.replace("{when}", series.time).replace("{right}", series.right)
      .replace("{all}", series.of).replace("{percent}", percent(chance(series.right, series.of)));
    past.append(line);
  }

  async function finish() {
    setOver(true);
    const right = given.filter((one) => one.x === one.answer).length;
    const told = [text.over.replace("{right}", right).replace("{all}", rounds)];
    told.push(text.guess.replace("{percent}", percent(chance(right, rounds))));
    tally.textContent = told.join(" ");
    round.textContent = "";
    told.push(await kept({ a: pair[0], b: pair[1], rounds: given }, right));
    tally.textContent = told.join(" ");
  }

  /* Beside the runs; where the server cannot write there, in this browser. */
  async function kept(series, right) {
    const here = { time: new Date().toISOString(), right, of: rounds };
    let reason;
    try {
      const headers = { "Content-Type": "application/json" };
      const answered = await fetch(text.post, { method: "POST", headers, body: JSON.stringify(series) });
      if (answered.ok) {
        list(await answered.json());
        return text.kept;
      }
      reason = await answered.text();
    } catch (error) {
      reason = error.message;
    }
    try {
      localStorage.setItem(storage, JSON.stringify([...stored(), here]));
    } catch (error) {
      return text.lost.replace("{reason}", reason);
    }
    list(here);
    return text.here.replace("{reason}", reason);
  }

  function stored() {
    try {
      const found = JSON.parse(localStorage.getItem(storage));
      return Array.isArray(found) ? found : [];
    } catch (error) {
      return [];
    }
  }

  function begin() {
    given = [];
    order = [];
    tally.textContent = "";
    setOver(false);
    nextRound();
  }

  for (const button of choices) button.addEventListener("click", () => hear(button.dataset.version));
  for (const button of answers) button.addEventListener("click", () => answer(button.dataset.answer));
  play.addEventListener("click", toggle);
  again.addEventListener("click", begin);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    const key = event.key.toLowerCase();
    if (over) return;
    if (key === "p") toggle();
    else if (["a", "x", "b"].includes(key)) hear(key);
    else if (key === "1" || key === "2") answer("ab"[Number(key) - 1]);
    else return;
    event.preventDefault();
  });
  for (const series of stored()) list(series);
  begin();
})();
