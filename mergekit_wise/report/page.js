// Moves the elements that follow the slider, and sorts tables. All positions were computed when the page was written.
(() => {
  "use strict";
  const find = (selector, root = document) => [...root.querySelectorAll(selector)];
  const { names, spoken, start } = JSON.parse(document.getElementById("data").textContent);
  const live = document.getElementById("live");
  document.documentElement.classList.add("js");

  const moving = find("[data-at]").map((element) => [element, element.dataset.at.split("|")]);
  const rows = find("tr[data-stops]").map((row) => [row, row.dataset.stops.split(" ").map(Number)]);
  const jumps = find("[data-stop]");
  const slider = document.getElementById("alpha");

  function place(element, where) {
    if (element.tagName === "circle") {
      const [x, y] = where.split(",");
      element.setAttribute("cx", x);
      element.setAttribute("cy", y);
    } else if (element.tagName === "line") {
      element.setAttribute("x1", where);
      element.setAttribute("x2", where);
    } else {
      element.textContent = where;
    }
  }

  function show(stop) {
    slider.value = stop;
    slider.setAttribute("aria-valuetext", names[stop]);
    for (const [element, where] of moving) place(element, where[stop]);
    for (const [row, stops] of rows) row.classList.toggle("now", stops.includes(stop));
    for (const jump of jumps) jump.setAttribute("aria-pressed", String(Number(jump.dataset.stop) === stop));
  }

  let soon;
  function say(text) {
    // Delayed, so that dragging the slider does not announce every stop.
    clearTimeout(soon);
    soon = setTimeout(() => { live.textContent = text; }, 250);
  }

  function go(stop) {
    show(stop);
    say(spoken[stop]);
  }

  // A click on a plot goes to the alpha whose point is nearest.
  function pick(event) {
    const svg = event.currentTarget;
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    let best = [Infinity, 0];
    for (const circle of find("circle[data-at]", svg)) {
      circle.dataset.at.split("|").forEach((where, stop) => {
        const [x, y] = where.split(",").map(Number);
        const far = svg.classList.contains("alpha") ? Math.abs(x - at.x) : Math.hypot(x - at.x, y - at.y);
        if (far < best[0]) best = [far, stop];
      });
    }
    go(best[1]);
  }

  if (slider) {
    slider.addEventListener("input", () => go(Number(slider.value)));
    for (const jump of jumps) jump.addEventListener("click", () => go(Number(jump.dataset.stop)));
    for (const svg of find("svg:has(circle[data-at])")) {
      svg.classList.add("pick");
      svg.addEventListener("click", pick);
    }
    show(start);
  }

  const NEXT = { descending: "ascending", ascending: "none", none: "descending" };
  const TEXT_NEXT = { ascending: "descending", descending: "none", none: "ascending" };

  function compare(a, b, sign) {
    if (a === b) return 0;
    if (a === "" || b === "") return a === "" ? 1 : -1; // missing numbers come last in either order
    const [x, y] = [Number(a), Number(b)];
    return sign * (Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y);
  }

  for (const table of find("table")) {
    const body = table.tBodies[0];
    const original = [...body.rows];
    const heads = find("thead th", table);
    heads.forEach((head, column) => {
      const button = head.querySelector("button");
      if (!button) return;
      const next = head.classList.contains("text") ? TEXT_NEXT : NEXT;
      button.addEventListener("click", () => {
        const order = next[head.getAttribute("aria-sort")];
        for (const other of heads) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", order);
        const key = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent.trim();
        const sign = order === "ascending" ? 1 : -1;
        const sorted = [...original];
        if (order !== "none") sorted.sort((a, b) => compare(key(a), key(b), sign));
        body.append(...sorted);
        say(order === "none" ? "in the original order" : `sorted by ${button.textContent.trim()}, ${order}`);
      });
    });
  }
})();
