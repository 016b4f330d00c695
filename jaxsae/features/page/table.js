"use strict";
// The table of features: sorted, searched, and kept in the address.

const FIRST = 200;  // rows that are shown at first
const state = { layer: 0, q: "", sort: "tells", up: false, sparse: false, marked: false, n: FIRST };

const rank = (l) => (l.rank ??= new Map(l.order.map((i, at) => [i, at])));
const bestConcept = (l, i) => (l.features[i].concepts.length ? l.concepts[l.features[i].concepts[0][0]].name : "");
const firstPlace = (f) => f.strongest[0] ?? f.intervals.flatMap(([, places]) => places)[0];
const snippet = (l, i) => {
  const place = firstPlace(l.features[i]);
  return place ? [...data.texts[place[0]][1]].slice(Math.max(0, place[1] - shownBefore), place[1] + shownBehind).join("") : "";
};
const shownBefore = data.unit === "character" ? 18 : 5, shownBehind = data.unit === "character" ? 9 : 4;

// [name, what kind, what is sorted by, how it is written, what it means]
const columns = [
  ["feature", "feature", (l, i) => i],
  ["tells", "number", (l, i) => -rank(l).get(i), (v, l, i) => figure2(l.tells[i]), `how much it tells: F1 of its caption; half where that predicts the strongest firings alone, a tenth where it is unclear${data.layers.some((l) => l.features.some((f) => f?.again)) ? "; less, the fewer of the other seeds have it" : ""}`],
  ["caption", "", (l, i) => l.features[i].caption],
  ["F1", "number", (l, i) => l.features[i].f1, (v) => (v ? figure2(v) : ""), "of the caption against the firing, on held-out texts"],
  ["seeds", "number", (l, i) => (l.features[i].again || [0, -1])[1], (v) => (v < 0 ? "–" : d3.format(".0%")(v)), "share of the other seeds in which it is found again"],
  ["fires on", "number", (l, i) => l.rate[i], percent],
  ["max", "number", (l, i) => l.max[i], short],
  ["finds", "", (l, i) => bestConcept(l, i)],
  ["run", "number", (l, i) => (l.features[i].concepts[0] || [0, 0])[1], (v) => (v ? figure2(v) : ""), "run score for that concept"],
  ["strongest context", "", (l, i) => snippet(l, i)],
].filter(([name]) => name !== "seeds" || data.layers.some((l) => l.features.some((f) => f?.again)));
const column = (name) => columns.find(([of]) => of === name);

// ---- the address

function tableAddress() {
  const query = new URLSearchParams();
  if (several) query.set("layer", data.layers[state.layer].layer);
  if (state.q) query.set("q", state.q);
  if (state.sort !== "tells") query.set("sort", state.sort);
  for (const name of ["up", "sparse", "marked"]) if (state[name]) query.set(name, 1);
  if (state.n !== FIRST) query.set("n", state.n);
  return `#/features${query.size ? `?${query}` : ""}`;
}

// a bare address is that of the table as it was left
function openTable(query) {
  query.delete("theme");
  if (query.size) {
    Object.assign(state, {
      layer: query.has("layer") ? layerNumber(query.get("layer")) : state.layer,
      q: query.get("q") ?? "", sort: column(query.get("sort")) ? query.get("sort") : "tells",
      up: query.has("up"), sparse: query.has("sparse"), marked: query.has("marked"),
      n: Math.max(FIRST, Number.parseInt(query.get("n"), 10) || 0),
    });
  }
  if ($("layer")) $("layer").value = state.layer;
  if ($("search").value !== state.q) $("search").value = state.q;
  $("sparse").checked = state.sparse;
  $("marked").checked = state.marked;
  showTable();
  rememberTable();
}

function rememberTable() {
  const address = tableAddress();
  for (const a of document.querySelectorAll("a[data-table]")) a.setAttribute("href", address);
  replaceAddress(address);
}

// ---- searching

// how much a hit there says that the feature is what was looked for
const nearness = { number: 8, caption: 7, finds: 6, class: 5, character: 4, note: 3, promotes: 2, context: 1 };
const fieldNames = Object.keys(nearness);

// [field, text, its spellings, how much a hit says] of what is known of a feature in words
function fieldsOf(l, i) {
  const f = l.features[i];
  return f.fields ??= [
    ["number", `#${i}`], ["caption", f.caption, /^(unclear|never)/.test(f.caption) ? 7 : 0], ["class", f.classes.join(", ")],
    ...f.characters.slice(0, 3).map((c) => ["character", visible(c[0])]), ...f.promotes.map((c) => ["promotes", visible(c[0])]),
    ...f.concepts.flatMap(([c, run]) => [["finds", l.concepts[c].name, 1 - run], ["finds", l.concepts[c].title, 1 - run]]), ["context", snippet(l, i)],
    ...f.strongest.slice(1).map(([sample, position]) => ["context", [...data.texts[sample][1]].slice(Math.max(0, position - shownBefore), position + shownBehind).join("")]),
  ].map(([field, text, less = 0]) => [field, text, spellings(text), nearness[field] - less]);
}

// the fields in which it is found; null: in none
function foundIn(layer, i, { among, of }) {
  if (!of) return [];
  const l = data.layers[layer], { note } = notes.of(layer, i);
  const every = note ? [...fieldsOf(l, i), ["note", note, spellings(note), nearness.note]] : fieldsOf(l, i);
  const found = every.filter(([field, , text]) => (!among || field === among) && (text.plain.text.includes(of) || text.indexed.text.includes(of)));
  return found.length ? found : null;
}

function found(sought) {
  const l = data.layers[state.layer], rows = [];
  for (let i = 0; i < l.rate.length; i++) {
    if (!l.features[i]) continue;  // of a wide SAE some are left out
    if (state.sparse && !(l.rate[i] > 0 && l.rate[i] <= 0.1)) continue;
    if (state.marked && !notes.has(state.layer, i)) continue;
    const fields = foundIn(state.layer, i, sought);
    if (fields) rows.push({ i, fields });
  }
  const key = column(state.sort)[2], order = state.up ? d3.ascending : d3.descending;
  const near = ({ fields }) => (state.sort === "tells" ? d3.max(fields, ([, , , of]) => of) : 0);
  return d3.sort(rows, (a, b) => d3.descending(near(a), near(b)) || order(key(l, a.i), key(l, b.i)));
}

// ---- showing

const inSight = new Set(["number", "caption"]);  // a hit elsewhere is written below the caption

function strongest(l, i, sought) {
  const place = firstPlace(l.features[i]);
  return place ? contextText(l.features[i], place, shownBefore, shownBehind - 1, sought) : "";
}

function captionCell(l, i, fields, sought) {
  const hidden = fields.find(([field, text]) => !inSight.has(field) && !(field === "finds" && text === bestConcept(l, i)) && !(field === "context" && text === snippet(l, i)));
  const inside = fields.some(([field, text]) => inSight.has(field) || text === bestConcept(l, i) || text === snippet(l, i));
  const note = hidden && !inside ? make("div", { class: "soft where-found" }, `${hidden[0]}: `, ...withHits(hidden[1], sought)) : null;
  // where the window is narrow the last column would be out of sight
  return make("td", { class: "caption" }, ...withHits(l.features[i].caption, sought), note, make("div", { class: "narrow" }, strongest(l, i, sought)));
}

function cell(name, { i, fields }, sought) {
  const l = data.layers[state.layer], [, kind, value, how] = column(name);
  if (kind === "feature") {
    const star = notes.has(state.layer, i) ? make("span", { class: "star", title: notes.of(state.layer, i).note || "bookmarked" }, "★ ") : null;
    return make("td", { class: "number" }, star, make("a", { href: href(state.layer, i) }, ...withHits(String(i), sought.replace(/^#/, ""))));
  }
  if (kind === "number") return make("td", { class: "number" }, how(value(l, i), l, i));
  if (name === "caption") return captionCell(l, i, fields, sought);
  if (name === "finds") return make("td", {}, ...withHits(value(l, i), sought));
  return make("td", {}, strongest(l, i, sought));
}

function showTable() {
  const l = data.layers[state.layer], table = $("table"), sought = wanted(state.q, fieldNames), rows = found(sought);
  table.tHead.replaceChildren(make("tr", {}, ...columns.map(([name, kind, , , title]) => {
    const button = make("button", { type: "button", title }, name);
    button.addEventListener("click", () => {
      Object.assign(state, { up: state.sort === name ? !state.up : kind !== "number", sort: name });
      showTable();
      rememberTable();
      [...$("table").querySelectorAll("th button")].find((one) => one.textContent === name).focus();
    });
    const sorted = state.sort === name ? (state.up ? "ascending" : "descending") : "none";
    return make("th", { scope: "col", class: kind === "number" || kind === "feature" ? "number" : null, "aria-sort": sorted }, button);
  })));
  table.tBodies[0].replaceChildren(...rows.slice(0, state.n).map((row) => make("tr", {}, ...columns.map(([name]) => cell(name, row, sought.of)))));
  $("count").textContent = `${rows.length.toLocaleString("en")} of ${counted(l.rate.length, "feature")}`;
  $("more").hidden = rows.length <= state.n;
  $("notes-said").textContent = notes.problem;
}

// what is typed or chosen: the address follows, without a step back for each letter
function tableChanged(what) {
  Object.assign(state, { n: FIRST, ...what });
  showTable();
  rememberTable();
}
$("search").addEventListener("input", () => tableChanged({ q: $("search").value.trim() }));
$("sparse").addEventListener("change", () => tableChanged({ sparse: $("sparse").checked }));
$("marked").addEventListener("change", () => tableChanged({ marked: $("marked").checked }));
$("layer")?.addEventListener("change", () => tableChanged({ layer: Number($("layer").value) }));
$("more").addEventListener("click", () => tableChanged({ n: state.n + 400 }));
document.querySelector("#features form").addEventListener("submit", (event) => event.preventDefault());
