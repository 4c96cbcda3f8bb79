"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// The library sorts on a click anywhere in a head; a button makes that known to keyboards and screen readers.
function button(th) {
  const inside = document.createElement("button");
  inside.type = "button";
  inside.append(...th.childNodes);
  th.append(inside);
}

all(".sortable thead th").forEach(button);

const tools = document.querySelector(".tools");

function show() {
  const set = tools.elements.dataset.value;
  const words = tools.elements.filter.value.trim().toLowerCase();
  const within = tools.elements.within.checked;
  all("[name=kind]", tools).forEach((box) => document.body.classList.toggle(`no-${box.value}`, !box.checked));
  all(".part, .card[data-set]").forEach((part) => part.toggleAttribute("data-off", Boolean(set) && part.dataset.set !== set));
  let shown = 0;
  const rows = all("#all-tables .sortable tbody tr");
  rows.forEach((row) => {
    const off = (words && !row.textContent.toLowerCase().includes(words)) || (within && !row.classList.contains("within"));
    row.toggleAttribute("data-off", Boolean(off));
    if (!off && !row.closest("[data-off]")) shown += 1;
  });
  all(".wide").forEach(mark);
  tools.querySelector(".shown").textContent = `${shown} of ${rows.length} rows`;
}

function mark(box) {
  box.toggleAttribute("data-more", box.scrollLeft + box.clientWidth < box.scrollWidth - 4);
}

const boxes = new ResizeObserver((entries) => entries.forEach((entry) => mark(entry.target)));
all(".wide").forEach((box) => {
  boxes.observe(box);
  box.addEventListener("scroll", () => mark(box), { passive: true });
});

tools.hidden = false;
if (matchMedia("(max-width: 40rem)").matches) all("[value=count]", tools).forEach((box) => { box.checked = false; });
tools.addEventListener("input", show);
tools.addEventListener("submit", (event) => event.preventDefault());
show();

const drawn = new Map();

function draw(plot) {
  if (drawn.has(plot)) return;
  const source = document.querySelector(`script[data-for="${plot.id}"]`);
  const spec = vegaLite.compile(JSON.parse(source.textContent)).spec;
  const view = new vega.View(vega.parse(spec), { renderer: "svg", container: plot, hover: true, logLevel: vega.Error });
  drawn.set(plot, view);
  // The plot's own label speaks for its marks, whose numbers are in the tables.
  view.runAsync().then(() => plot.querySelector("svg").setAttribute("aria-hidden", "true"));
}

const watcher = new IntersectionObserver((entries) => {
  entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
    watcher.unobserve(entry.target);
    draw(entry.target);
  });
}, { rootMargin: "400px" });
all(".plot").forEach((plot) => watcher.observe(plot));

function reveal() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const card = target && target.closest("details");
  if (!card) return;
  card.removeAttribute("data-off");
  card.open = true;
  target.scrollIntoView();
  target.focus({ preventScroll: true });
}

window.addEventListener("hashchange", reveal);
document.addEventListener("click", (event) => {
  const link = event.target.closest && event.target.closest('a[href^="#"]');
  // The same link twice changes no hash.
  if (link && link.hash === location.hash) reveal();
});
reveal();

let closed = [];
window.addEventListener("beforeprint", () => {
  closed = all("details:not([open])");
  closed.forEach((card) => { card.open = true; });
  all(".plot").forEach(draw);
  // Heads are repeated on every page of a table, and Chromium leaves the buttons in them out.
  all(".sortable thead th > button").forEach((inside) => inside.replaceWith(...inside.childNodes));
});
window.addEventListener("afterprint", () => {
  closed.forEach((card) => { card.open = false; });
  all(".sortable thead th").forEach(button);
});
