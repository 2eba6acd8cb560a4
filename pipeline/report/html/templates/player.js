
(() => {
  "use strict";
  const root = document.querySelector(".player");
  if (!root || !window.AudioContext) return;
  const text = root.dataset;
  const find = (selector) => root.querySelector(selector);
  const [play, select, blind, choices, answers, tally] =
    [".play", "select", ".blind input", ".choices", ".answers", ".tally"].map(find);
  const sentences = [...document.querySelectorAll(".sentence")].map((article) => ({
    name: article.dataset.id,
    versions: [...article.querySelectorAll("audio")].map((audio) => ({
      kind: audio.dataset.version, caption: audio.dataset.caption, audio,
    })).sort((a, b) => order(a.kind) - order(b.kind)),
  })).filter((sentence) => sentence.versions.length > 1);
  if (!sentences.length) return;

  const series = { right: 0, decided: 0, unsure: 0 };
  let context = null, playing = null, starting = 0, heard = 0, swapped = false;

  function order(kind) { return ["fp32", "quantized", "recording"].indexOf(kind); }

  /* What the buttons stand for: fp32, quantized, recording; blind, the first two in an order of chance. */
  function offered() {
    const versions = sentences[select.selectedIndex].versions.slice();
    if (blind.checked && swapped) [versions[0], versions[1]] = [versions[1], versions[0]];
    return versions;
  }

  function drawChoices() {
    choices.replaceChildren(...offered().map((version, number) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = blind.checked && number < 2 ? "AB"[number] : version.caption;
      button.addEventListener("click", () => hear(number));
      return button;
    }));
    answers.hidden = !blind.checked;
    for (const audio of document.querySelectorAll(".sentence audio")) audio.inert = blind.checked;
    hear(Math.min(heard, offered().length - 1));
  }

  function hear(number) {
    heard = number;
    [...choices.children].forEach((button, index) => button.setAttribute("aria-pressed", index === number));
    if (playing) {
      const chosen = offered()[number].kind;
      for (const [kind, gain] of playing.gains) gain.gain.setTargetAtTime(kind === chosen ? 1 : 0, context.currentTime, 0.004);
    }
  }

  async function samples(version) {
    if (!version.buffer) {
      const bytes = Uint8Array.from(atob(version.audio.src.split(",")[1]), (character) => character.charCodeAt(0));
      version.buffer = await context.decodeAudioData(bytes.buffer);
    }
    return version.buffer;
  }

  async function start() {
    const own = ++starting;
    context = context || new AudioContext();
    context.resume();
    const versions = sentences[select.selectedIndex].versions;
    const buffers = await Promise.all(versions.map(samples));
    if (own !== starting) return;
    for (const audio of document.querySelectorAll("audio")) audio.pause();
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
      playing.gains.push([versions[index].kind, gain]);
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

  function toggle() { if (playing) stop(); else start(); }

  function next(number) {
    const plays = playing !== null;
    stop();
    select.selectedIndex = number;
    swapped = Math.random() < 0.5;
    drawChoices();
    if (plays) start();
  }

  function answer(given) {
    const kinds = offered().map((version) => version.kind);
    const right = kinds.indexOf("quantized");
    if (given === "unsure") series.unsure += 1;
    else {
      series.decided += 1;
      if (Number(given) === right) series.right += 1;
    }
    const told = [text.was.replace("{name}", "AB"[right])];
    told.push(text.tally.replace("{right}", series.right).replace("{decided}", series.decided).replace("{unsure}", series.unsure));
    if (series.decided) told.push(text.guess.replace("{percent}", Math.round(100 * chance(series.right, series.decided))));
    tally.textContent = told.join(" ");
    next(Math.floor(Math.random() * sentences.length));
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

  for (const sentence of sentences) select.append(new Option(sentence.name));
  select.addEventListener("change", () => next(select.selectedIndex));
  blind.addEventListener("change", () => next(select.selectedIndex));
  play.addEventListener("click", toggle);
  for (const button of answers.querySelectorAll("button")) button.addEventListener("click", () => answer(button.dataset.answer));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    if (event.key === "p" || event.key === "P") toggle();
    else if (/^[1-3]$/.test(event.key) && Number(event.key) <= choices.children.length) hear(Number(event.key) - 1);
    else return;
    event.preventDefault();
  });
  root.hidden = false;
  drawChoices();
})();
