
(() => {
  "use strict";
  const form = document.querySelector(".filter");
  if (!form) return;
  const words = form.querySelector("input[type=search]");
  const selects = [...form.querySelectorAll("select")];
  const front = form.querySelector("input[type=checkbox]");
  const count = form.querySelector(".count");
  const rows = [...document.querySelectorAll("tr[data-run]")];
  const points = [...document.querySelectorAll("svg [data-run]")];

  function wanted(row) {
    const text = row.dataset.words.toLowerCase();
    return words.value.toLowerCase().split(/\s+/).every((word) => text.includes(word))
      && selects.every((select) => !select.value || row.dataset[select.dataset.key] === select.value)
      && (!front.checked || row.dataset.front === "yes");
  }

  function update() {
    const shown = new Set();
    for (const row of rows) {
      row.hidden = !wanted(row);
      if (!row.hidden) shown.add(row.dataset.run);
    }
    for (const point of points) point.classList.toggle("out", !shown.has(point.dataset.run));
    for (const section of document.querySelectorAll("section.model")) {
      section.hidden = !section.querySelector("tr[data-run]:not([hidden])");
    }
    count.textContent = count.dataset.text.replace("{shown}", shown.size).replace("{all}", rows.length);
  }

  form.hidden = false;
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  update();
})();
