"use strict";
const value = (row, column) => {
  const cell = row.cells[column];
  return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent.trim();
};
const compare = (a, b) => {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a !== typeof b) return typeof a === "number" ? 1 : -1;
  return a.localeCompare(b, undefined, { numeric: true });
};
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const numeric = rows.some((row) => typeof value(row, column) === "number");
    const now = head.getAttribute("aria-sort");
    const next = now === "none" ? (numeric ? "descending" : "ascending")
      : now === "ascending" ? "descending" : "ascending";
    const sign = next === "ascending" ? 1 : -1;
    rows.sort((a, b) => sign * compare(value(a, column), value(b, column)));
    for (const other of heads) other.setAttribute("aria-sort", other === head ? next : "none");
    body.append(...rows);
  }));
}
for (const cases of document.querySelectorAll(".cases")) {
  const button = cases.querySelector("button.all");
  const all = [...cases.querySelectorAll("details")];
  button.hidden = false;
  button.addEventListener("click", () => {
    const open = all.some((one) => !one.open);
    for (const one of all) one.open = open;
    button.textContent = open ? "Close all" : "Open all";
  });
}
