"use strict";
const form = document.querySelector(".filter");
const count = document.querySelector(".count");
const body = document.querySelector(".rows tbody");
const pointed = document.getElementById("pointed");
const headings = [...document.querySelectorAll(".rows thead th")];
const rows = [...body.rows];
const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
const lines = new Map(rows.map((row) => [row, [...document.querySelectorAll(`[id$="-${row.dataset.line}"]`)]]));

// Filter: rows that have every word and each chosen value; a line stays as long as one row of its trial does.
function filter() {
  const { words, ...choices } = Object.fromEntries(new FormData(form));
  const wanted = words.toLowerCase().split(/\s+/);
  const chosen = Object.entries(choices).filter(([, value]) => value !== "");
  for (const row of rows) {
    row.hidden = !(wanted.every((word) => texts.get(row).includes(word)) && chosen.every(([key, value]) => row.dataset[key] === value));
  }
  const shown = rows.filter((row) => !row.hidden);
  const kept = new Set(shown.flatMap((row) => lines.get(row)));
  for (const line of new Set([...lines.values()].flat())) line.classList.toggle("dim", !kept.has(line));
  count.textContent = `${shown.length} of ${rows.length} rows`;
  makeReachable(shown[0]);
}

// Sort: numbers as numbers, missing ones last either way.
function sort(heading) {
  const direction = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  headings.forEach((each) => each.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", direction);
  const { cellIndex } = heading;
  const number = heading.classList.contains("number");
  const key = (row) => (number ? row.cells[cellIndex].dataset.value : row.cells[cellIndex].textContent);
  const compare = (a, b) => (number ? a - b : a.localeCompare(b, "en", { numeric: true }));
  rows.sort((a, b) => {
    const [left, right] = [key(a) ?? "", key(b) ?? ""];
    if (left === "" || right === "") return (left === "") - (right === "");
    return direction === "ascending" ? compare(left, right) : compare(right, left);
  });
  body.append(...rows);
}

for (const heading of headings) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...heading.childNodes);
  button.addEventListener("click", () => sort(heading));
  heading.append(button);
}

// A trial that is pointed at or focused stands out in the figure, in the table and in words.
function point(row) {
  document.querySelectorAll(".lit, .lit-row").forEach((each) => each.classList.remove("lit", "lit-row"));
  const drawn = row ? lines.get(row) : [];
  document.body.classList.toggle("pointing", drawn.length > 0);
  for (const line of drawn) line.classList.add("lit");
  row?.classList.add("lit-row");
  if (pointed) pointed.textContent = drawn.length ? describe(row) : "";
}

function describe(row) {
  const known = headings.map((heading, index) => [heading.textContent, row.cells[index].textContent]);
  return known.slice(1).filter(([, value]) => value !== "").map(([name, value]) => `${name} ${value}`).join(" · ");
}

for (const row of rows) {
  row.tabIndex = -1;
  row.addEventListener("mouseenter", () => point(row));
  row.addEventListener("mouseleave", () => point(null));
  row.addEventListener("focus", () => point(row));
  row.addEventListener("blur", () => point(null));
  for (const line of lines.get(row)) {
    line.addEventListener("mouseenter", () => point(row));
    line.addEventListener("mouseleave", () => point(null));
    line.addEventListener("click", () => row.focus());
  }
}

// One row is a stop of the tab key; arrows lead from it to the others.
function makeReachable(row) {
  for (const each of rows) each.tabIndex = each === row ? 0 : -1;
}

body.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  const shown = rows.filter((row) => !row.hidden);
  const next = shown[shown.indexOf(event.target.closest("tr")) + step];
  if (!next) return;
  event.preventDefault();
  makeReachable(next);
  next.focus();
});

form.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(filter));
form.hidden = false;
filter();
