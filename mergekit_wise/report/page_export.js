// Copies and saves what is shown: commands, tables as texts, plots as SVG and PNG. Nothing leaves the machine: a file is
// a blob that the page itself offers, and a PNG is drawn from the SVG as a data address, which the policy allows images.
const SCALE = 3; // pixels of a PNG for a unit of its plot
const SHAPES = "path, line, circle, rect, text";
const STYLES = [
  "fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linecap", "stroke-linejoin", "opacity", "font-family",
  "font-size", "font-weight", "text-anchor", "dominant-baseline",
];

const fileName = (text) => text.toLowerCase().replace(/[^a-z0-9.]+/g, "-").replace(/^[-.]+|[-.]+$/g, "").slice(0, 80)
  || "unnamed";

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without a clipboard of its own, as on a page that was not sent by https, or without permission.
    const area = made("textarea", { class: "hidden", readonly: "" });
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    if (!copied) throw new Error("the browser does not allow copying");
  }
}

function save(name, content, type) {
  const link = made("a", { download: name, href: URL.createObjectURL(new Blob([content], { type })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000); // the browser may still be reading
}

// The plot as a file of its own: the styles of the light page become attributes, which every program reads.
function standalone(svg) {
  const drawn = svg.cloneNode(true);
  root.classList.add("light");
  const pairs = find(SHAPES, svg).map((shape, place) => [getComputedStyle(shape), find(SHAPES, drawn)[place]]);
  for (const [style, shape] of pairs) {
    const isText = shape.tagName === "text";
    for (const name of STYLES) {
      if (/^(font|text|dominant)-/.test(name) ? isText : !name.startsWith("stroke") || style.stroke !== "none") {
        shape.setAttribute(name, style.getPropertyValue(name));
      }
    }
  }
  const paper = getComputedStyle(root).getPropertyValue("--card").trim();
  root.classList.remove("light");
  find(".point", drawn).forEach((point) => point.remove());
  for (const element of [drawn, ...find("*", drawn)]) {
    for (const { name } of [...element.attributes]) {
      if (name === "class" || name.startsWith("data-") || name === "aria-hidden") element.removeAttribute(name);
    }
  }
  const { width, height } = svg.viewBox.baseVal;
  const attributes = { xmlns: SVG, width, height, role: "img" };
  for (const [name, value] of Object.entries(attributes)) drawn.setAttribute(name, value);
  const ground = document.createElementNS(SVG, "rect");
  for (const [name, value] of Object.entries({ width, height, fill: paper })) ground.setAttribute(name, value);
  drawn.querySelector("desc").after(ground);
  return { text: new XMLSerializer().serializeToString(drawn), width, height };
}

async function png(svg) {
  const { text, width, height } = standalone(svg);
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const canvas = made("canvas", { width: width * SCALE, height: height * SCALE });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => blob ? resolve(blob) : reject(new Error("the browser draws no PNG")), "image/png");
  });
}

// A button that says what became of its task.
function action(text, done, task) {
  const button = made("button", { type: "button" }, text);
  button.addEventListener("click", async () => {
    let outcome = done;
    try {
      await task();
    } catch (error) {
      outcome = `Failed: ${error.message}`;
    }
    say(outcome);
    button.textContent = outcome;
    setTimeout(() => { button.textContent = text; }, 1600);
  });
  return button;
}

function menu(label, buttons) {
  const found = made("details", { class: "menu" });
  const head = made("summary", { "aria-label": `${label}: copy or save` }, "Copy or save");
  const list = made("div", { class: "choices" });
  list.append(...buttons);
  found.append(head, list);
  found.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !found.open) return;
    found.open = false;
    head.focus();
  });
  return found;
}

addEventListener("click", (event) => {
  for (const open of find(".menu[open]")) if (!open.contains(event.target)) open.open = false;
});

for (const [ident, texts] of Object.entries(tables)) {
  const region = document.getElementById(ident).parentElement;
  const title = region.getAttribute("aria-label");
  const types = { csv: "text/csv", md: "text/markdown", tex: "application/x-tex" };
  const buttons = Object.entries(kinds).flatMap(([ending, kind]) => [
    action(`Copy ${kind}`, "Copied", () => copy(texts[ending])),
    action(`Save ${kind}`, "Saved", () => save(`${fileName(title)}.${ending}`, texts[ending], types[ending])),
  ]);
  const bar = made("div", { class: "bar" });
  bar.append(menu(title, buttons));
  region.before(bar);
}

for (const figure of find("figure")) {
  const svg = figure.querySelector("svg");
  const title = svg.querySelector("title").textContent;
  const name = fileName(title);
  figure.querySelector("figcaption").append(menu(title, [
    action("Save SVG", "Saved", () => save(`${name}.svg`, standalone(svg).text, "image/svg+xml")),
    action("Save PNG", "Saved", async () => save(`${name}.png`, await png(svg), "image/png")),
    action("Copy SVG", "Copied", () => copy(standalone(svg).text)),
  ]));
}

for (const command of find(".command")) {
  const button = action("Copy", "Copied", () => copy(command.textContent.trim()));
  button.setAttribute("aria-label", "Copy the command");
  command.after(button);
}
