// The values of points: shown beside the pointer, and of the point that has the focus. A plot is one stop of the Tab
// key; arrows move between its points, Home and End to the first and the last, and Enter moves the slider there.
const SVG = "http://www.w3.org/2000/svg";
const REACH = 28; // pixels between the pointer and a point whose value is shown

const tip = made("div", { class: "tip", "aria-hidden": "true", hidden: "" });
document.body.append(tip);

function tell(svg, point) {
  const matrix = svg.getScreenCTM();
  const at = new DOMPoint(point.x, point.y).matrixTransform(matrix);
  tip.textContent = point.text;
  tip.hidden = false;
  tip.style.left = "0"; // near the right edge it would be measured too narrow
  const { width, height } = tip.getBoundingClientRect();
  const left = Math.min(Math.max(at.x - width / 2, 4), root.clientWidth - width - 4);
  const top = at.y - height - 12 < 4 ? at.y + 14 : at.y - height - 12;
  tip.style.left = `${left + scrollX}px`;
  tip.style.top = `${top + scrollY}px`;
}

function hush() {
  tip.hidden = true;
}

function nearest(svg, lines, event) {
  const matrix = svg.getScreenCTM();
  let best = [REACH, null];
  for (const point of lines.flat()) {
    const at = new DOMPoint(point.x, point.y).matrixTransform(matrix);
    const far = Math.hypot(at.x - event.clientX, at.y - event.clientY);
    if (far < best[0]) best = [far, point];
  }
  return best[1];
}

// A click on a plot goes to the alpha whose point is nearest.
function pick(svg, event) {
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

function focusable(point, svg) {
  const circle = document.createElementNS(SVG, "circle");
  const attributes = { class: "point", cx: point.x, cy: point.y, r: 7, tabindex: -1, "aria-label": point.text };
  attributes.role = point.alpha === null || !slider ? "img" : "button";
  for (const [name, value] of Object.entries(attributes)) circle.setAttribute(name, value);
  circle.addEventListener("focus", () => { if (circle.matches(":focus-visible")) tell(svg, point); });
  circle.addEventListener("blur", hush);
  // Screen readers click what they focus; the pointer's clicks go to the plot.
  circle.addEventListener("click", (event) => {
    event.stopPropagation();
    if (point.alpha !== null) go(nearestStop(point.alpha));
  });
  return circle;
}

function ready(svg) {
  const lines = find("[data-points]", svg).map((group) => group.dataset.points.split("\n").map((line) => {
    const [x, y, alpha, text] = line.split("\t");
    return { x: Number(x), y: Number(y), alpha: alpha === "" ? null : Number(alpha), text };
  }));
  const circles = lines.map((line) => line.map((point) => focusable(point, svg)));
  svg.append(...circles.flat());
  svg.setAttribute("role", "group"); // an image would hide its points from screen readers
  circles[0][0].setAttribute("tabindex", "0");

  let [line, place] = [0, 0];
  function focus(toLine, toPlace) {
    circles[line][place].setAttribute("tabindex", "-1");
    line = Math.min(Math.max(toLine, 0), circles.length - 1);
    place = Math.min(Math.max(toPlace, 0), circles[line].length - 1);
    circles[line][place].setAttribute("tabindex", "0");
    circles[line][place].focus();
  }
  svg.addEventListener("keydown", (event) => {
    const point = lines[line][place];
    const moves = {
      ArrowLeft: () => focus(line, place - 1),
      ArrowRight: () => focus(line, place + 1),
      ArrowUp: () => focus(line - 1, place),
      ArrowDown: () => focus(line + 1, place),
      Home: () => focus(line, 0),
      End: () => focus(line, Infinity),
      Escape: hush,
      ...(point.alpha === null ? {} : { Enter: () => go(nearestStop(point.alpha)), " ": () => go(nearestStop(point.alpha)) }),
    };
    if (!(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    moves[event.key]();
  });
  svg.addEventListener("pointermove", (event) => {
    const point = nearest(svg, lines, event);
    if (point) tell(svg, point); else hush();
  });
  svg.addEventListener("pointerleave", hush);
  if (slider && find("circle[data-at]", svg).length) {
    svg.classList.add("pick");
    svg.addEventListener("click", (event) => pick(svg, event));
  }
}

for (const svg of find("svg:has([data-points])")) ready(svg);
