// Moves the elements that follow the slider. All positions were computed when the page was written.
const root = document.documentElement;
const find = (selector, inside = document) => [...inside.querySelectorAll(selector)];
const { names, spoken, start, stops, key, kinds, tables } = JSON.parse(document.getElementById("data").textContent);
const live = document.getElementById("live");
root.classList.add("js");

let soon;
function say(text) {
  // Delayed, so that dragging the slider does not announce every stop.
  clearTimeout(soon);
  soon = setTimeout(() => { live.textContent = text; }, 250);
}

function made(tag, attributes = {}, text = "") {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}

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
  for (const [row, shown] of rows) row.classList.toggle("now", shown.includes(stop));
  for (const jump of jumps) jump.setAttribute("aria-pressed", String(Number(jump.dataset.stop) === stop));
}

function nearestStop(alpha) {
  return stops.reduce((best, each, stop) => Math.abs(each - alpha) < Math.abs(stops[best] - alpha) ? stop : best, 0);
}

// What the reader chose is shown, announced and kept in the address.
function go(stop) {
  if (!slider) return;
  show(stop);
  say(spoken[stop]);
  remember(stop);
}

if (slider) {
  slider.addEventListener("input", () => go(Number(slider.value)));
  for (const jump of jumps) jump.addEventListener("click", () => go(Number(jump.dataset.stop)));
}

// Printed pages are whole: what is folded is opened, and folded again afterwards.
const folded = [];
addEventListener("beforeprint", () => {
  for (const each of find("details:not(.menu):not([open])")) {
    each.open = true;
    folded.push(each);
  }
});
addEventListener("afterprint", () => {
  for (const each of folded.splice(0)) each.open = false;
});
