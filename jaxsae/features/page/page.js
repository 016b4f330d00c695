"use strict";
// Views, by the address behind #; what is chosen in a view stands there too. Each step of the browser's history has a
// number, under which it is remembered how far the view was scrolled.

// view -> how it is shown, from the rest of the address' path and what stands after its question mark
const views = {
  answers: () => {},
  features: (_, query) => openTable(new URLSearchParams(query)),
  feature: ([layerName, feature]) => {
    const layer = layerNumber(layerName), i = Number(feature), n = data.layers[layer].rate.length;
    if (state.layer !== layer) Object.assign(state, { layer, n: FIRST });
    for (const a of document.querySelectorAll("a[data-table]")) a.setAttribute("href", tableAddress());
    showFeature(layer, Number.isInteger(i) && i >= 0 && i < n ? i : 0);
    $("feature-title").focus({ preventScroll: true });
  },
  text: ([sample], query) => {
    showText(sample, new URLSearchParams(query));
    $("text-title").focus({ preventScroll: true });
  },
  map: (_, query) => openMap(new URLSearchParams(query)),
  concepts: () => once("concepts", () => $("concepts-body").append(...data.layers.map((_, layer) => conceptTable(layer)))),
  layers: () => once("layers", () => showLayers($("layers-body"))),
};
const within = { feature: "features", text: "features" };  // the view whose link is the current one

const built = new Set();
function once(name, build) { if (!built.has(name)) { built.add(name); build(); } }

function splitAddress() {
  const cut = location.hash.indexOf("?"), query = cut < 0 ? "" : location.hash.slice(cut + 1);
  const [, view, ...rest] = (cut < 0 ? location.hash : location.hash.slice(0, cut)).split("/");
  return { view, rest, query };
}

let step = 0;  // the number of this step, and the farthest that there is
let farthest = 0;
const scrolled = new Map();

function show() {
  const { view, rest, query } = splitAddress(), known = Object.keys(views).filter((id) => $(id));
  const current = known.includes(view) ? view : data.live ? "restore" : "answers";
  const before = history.state?.step, first = step === 0;
  if (before === undefined || first) chooseTheme(new URLSearchParams(query).get("theme") ?? theme());
  step = before ?? farthest + 1;
  farthest = Math.max(farthest, step);
  for (const id of known) $(id).hidden = id !== current;
  for (const a of document.querySelectorAll("nav a")) {
    if (a.dataset.view === (within[current] ?? current)) a.setAttribute("aria-current", "page"); else a.removeAttribute("aria-current");
  }
  views[current](rest, query);
  if (current !== "restore") replaceAddress(location.hash);
  else history.replaceState({ ...history.state, step }, "");
  const at = scrolled.get(step);
  if (at !== undefined) scrollTo(0, at);
  else if (!first || before === undefined) scrollToStart(current);
}

// a new view begins at its top, a text at its place
function scrollToStart(view) {
  const place = view === "text" && document.querySelector("#text .peak");
  if (place) place.scrollIntoView({ block: "center" }); else scrollTo(0, 0);
}

// The address of this step becomes another: of the same view, but with what has been chosen. The theme goes with it.
function replaceAddress(address) {
  const [path, query] = address.split("?"), whole = new URLSearchParams(query);
  whole.delete("theme");
  if (theme()) whole.set("theme", theme());
  history.replaceState({ ...history.state, step }, "", `${path || "#/answers"}${whole.size ? `?${whole}` : ""}`);
}

// ---- the theme: as the system has it, until another is chosen

const remembered = {
  get(name) { try { return sessionStorage.getItem(name); } catch { return null; } },
  set(name, value) { try { sessionStorage.setItem(name, value); } catch { /* then it is forgotten on reload */ } },
};
const theme = () => document.documentElement.dataset.theme;
const isDark = () => (theme() ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
function chooseTheme(chosen) {
  if (chosen === "dark" || chosen === "light") {
    document.documentElement.dataset.theme = chosen;
    remembered.set("jaxsae theme", chosen);
  }
  $("theme").setAttribute("aria-pressed", String(isDark()));
}
$("theme").addEventListener("click", () => {
  chooseTheme(isDark() ? "light" : "dark");
  if (splitAddress().view !== "restore") replaceAddress(location.hash);
});

// ---- scrolling

history.scrollRestoration = "manual";
addEventListener("scroll", () => { scrolled.set(step, scrollY); }, { passive: true });
addEventListener("pagehide", () => remembered.set(`jaxsae scrolled ${location.pathname}`, JSON.stringify([...scrolled])));
try {
  for (const [number, y] of JSON.parse(remembered.get(`jaxsae scrolled ${location.pathname}`) ?? "[]")) scrolled.set(number, y);
} catch { /* another page wrote it */ }
farthest = Math.max(0, ...scrolled.keys());
chooseTheme(remembered.get("jaxsae theme"));

// ---- keys

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;  // the browser's own
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName ?? "");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    if ($("features").hidden) { location.hash = tableAddress(); show(); }
    $("search").focus();
  }
  if (!typing && !$("feature").hidden && (event.key === "ArrowLeft" || event.key === "ArrowRight")) {
    location.hash = $(event.key === "ArrowLeft" ? "previous" : "next").getAttribute("href");
  }
});
addEventListener("hashchange", show);
addEventListener("DOMContentLoaded", show);  // after the scripts that follow this one
