// Tables are sorted by the buttons in their heads: up, down, and as they were.
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
      const keyOf = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent.trim().replace(/^–$/, "");
      const sign = order === "ascending" ? 1 : -1;
      const sorted = [...original];
      if (order !== "none") sorted.sort((a, b) => compare(keyOf(a), keyOf(b), sign));
      body.append(...sorted);
      say(order === "none" ? "in the original order" : `sorted by ${button.textContent.trim()}, ${order}`);
    });
  });
}
