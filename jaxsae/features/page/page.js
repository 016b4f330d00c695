"use strict";
// Texts reach the page as text nodes only, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const percent = d3.format(".2%"), figure3 = d3.format(".3f"), figure2 = d3.format(".2f"), short = d3.format(".3~g");
const accent = "var(--accent)";

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// what is said of characters, said of the tokens that a model has instead
const said = (text) => {
  if (data.unit === "character") return text;
  const of = text.replaceAll("character", data.unit).replaceAll("Character", data.unit[0].toUpperCase() + data.unit.slice(1));
  return data.unit === "sign" ? of : of.replaceAll("damaged", "hidden").replaceAll("restored", "predicted");
};
const shownBefore = data.unit === "character" ? 18 : 5, shownBehind = data.unit === "character" ? 9 : 4;
const visible = (character) => (character === " " ? "␣" : character);
const href = (layer, feature) => `#/feature/${data.layers[layer].layer}/${feature}`;
const link = (layer, feature) => make("a", { href: href(layer, feature) }, String(feature));

function chart(description, options) {
  if (options.x) options.x = { labelOffset: 38, ...options.x };
  const plot = Plot.plot({ marginBottom: 44, style: { background: "none", fontSize: "12px" }, ariaLabel: description, ...options });
  const svg = plot.tagName.toLowerCase() === "svg" ? plot : plot.querySelector("svg");
  svg.setAttribute("role", "img");
  return plot;
}

// ---- contexts: [sample, position, text, index, cut, damaged indices, digits of firing, largest value, level]

function contextText([, , text, at, cut, damaged, digits], from = 0, to = Infinity) {
  const holes = new Set(damaged);
  const node = make("span", { class: "text", lang: data.language_tag });
  if (cut[0] && from === 0) node.append("…");
  let run = "";
  const flush = () => { if (run) node.append(run); run = ""; };
  [...text].forEach((character, i) => {
    if (i < from || i >= to) return;
    const level = Number(digits[i]);
    if (!level && !holes.has(i)) { run += character; return; }
    flush();
    const classes = [i === at && level ? "peak" : "", holes.has(i) ? "damaged" : ""].filter(Boolean).join(" ");
    const attributes = { class: classes || null, title: holes.has(i) ? said("damaged: the model does not see it") : null };
    if (level) attributes.style = `--level: ${level / 11}`;
    node.append(make(level ? "mark" : "span", attributes, character));
  });
  flush();
  if (cut[1] && to === Infinity) node.append("…");
  return node;
}

// ---- the table of features

const place = (l) => (l.place ??= new Map(l.order.map((i, at) => [i, at])));
const columns = [
  ["feature", "feature", (l, i) => -place(l).get(i)],
  ["caption", "", (l, i) => l.features[i].caption],
  ["F1", "number", (l, i) => l.features[i].f1, (v) => (v ? figure2(v) : ""), "of the caption against the firing, on held-out texts"],
  ["seeds", "number", (l, i) => (l.features[i].again || [0, -1])[1], (v) => (v < 0 ? "–" : d3.format(".0%")(v)), "share of the other seeds in which it is found again"],
  ["fires on", "number", (l, i) => l.rate[i], percent],
  ["max", "number", (l, i) => l.max[i], short],
  ["finds", "", (l, i) => bestConcept(l, i)],
  ["run", "number", (l, i) => (l.features[i].concepts[0] || [0, 0])[1], (v) => (v ? figure2(v) : ""), "run score for that concept"],
  ["strongest context", "", (l, i) => snippet(l, i)],
].filter(([name]) => name !== "seeds" || data.layers.some((l) => l.features.some((f) => f?.again)));
const topCharacters = (l, i) => l.features[i].characters.slice(0, 3).map((c) => visible(c[0])).join(" ");
const bestConcept = (l, i) => (l.features[i].concepts.length ? l.concepts[l.features[i].concepts[0][0]].name : "");
const snippet = (l, i) => (l.features[i].contexts.length ? [...l.features[i].contexts[0][2]].join("") : "");

const state = { layer: 0, sort: 0, down: true, limit: 200 };

function searchable(layer, i) {
  const l = data.layers[layer], f = l.features[i];
  f.words ??= [
    `#${i}`, f.caption, topCharacters(l, i), ...f.concepts.map((c) => l.concepts[c[0]].name + " " + l.concepts[c[0]].title),
    ...f.contexts.map((c) => [...c[2]].join("")), ...f.promotes.map((c) => c[0]),
  ].join("\n").toLowerCase();
  return f.words;
}

function found() {
  const l = data.layers[state.layer], words = $("search").value.trim().toLowerCase();
  const rows = d3.range(l.rate.length).filter((i) => {
    if (!l.features[i]) return false;  // of a wide SAE some are left out
    if ($("sparse").checked && !(l.rate[i] > 0 && l.rate[i] <= 0.1)) return false;
    return !words || String(i) === words || searchable(state.layer, i).includes(words);
  });
  const key = columns[state.sort][2];
  const order = state.down ? d3.descending : d3.ascending;
  return d3.sort(rows, (a, b) => order(key(l, a), key(l, b)));
}

function showTable() {
  const l = data.layers[state.layer], table = $("table");
  table.tHead.replaceChildren(make("tr", {}, ...columns.map(([name, kind, , , title], number) => {
    const button = make("button", { type: "button", title }, name);
    button.addEventListener("click", () => {
      state.down = state.sort === number ? !state.down : kind !== "";
      state.sort = number;
      showTable();
      $("table").tHead.rows[0].cells[number].querySelector("button").focus();
    });
    const sorted = state.sort === number ? (state.down ? "descending" : "ascending") : "none";
    return make("th", { scope: "col", class: kind === "number" ? "number" : null, "aria-sort": sorted }, button);
  })));
  const rows = found();
  table.tBodies[0].replaceChildren(...rows.slice(0, state.limit).map((i) => make("tr", {}, ...columns.map(
    ([name, kind, value, how]) => {
      if (kind === "feature") return make("td", { class: "number" }, link(state.layer, i));
      if (kind === "number") return make("td", { class: "number" }, how(value(l, i)));
      if (name === "strongest context" && l.features[i].contexts.length) {
        const context = l.features[i].contexts[0];
        return make("td", {}, contextText(context, Math.max(0, context[3] - shownBefore), context[3] + shownBehind));
      }
      return make("td", { class: name === "caption" ? "caption" : null }, value(l, i));
    }))));
  $("count").textContent = `${rows.length.toLocaleString("en")} of ${l.rate.length.toLocaleString("en")} features`;
  $("more").hidden = rows.length <= state.limit;
}

// ---- one feature

function bars(rows, description) {
  return chart(description, {
    width: 420, height: 26 * rows.length + 64, marginLeft: 110, x: { label: "share of its firings", tickFormat: "%" },
    y: { label: null, domain: rows.map((r) => r[0]) },
    marks: [Plot.barX(rows, { x: (r) => r[1], y: (r) => r[0], fill: accent }), Plot.ruleX([0]),
      Plot.text(rows, { x: (r) => r[1], y: (r) => r[0], text: (r) => `on ${d3.format(".1%")(r[2])} of them`, dx: 4, textAnchor: "start" })],
  });
}

// a caption without its figures
const words = (l, i) => (l.features[i]?.caption ?? "left out of this page").replace(/ \(\d+% of .*$/, "");

function chips(items) {
  return make("ul", { class: "chips" }, ...items.map((item) => make("li", {}, ...[].concat(item))));
}

function showFeature(layer, i) {
  const l = data.layers[layer], f = l.features[i], body = $("feature-body");
  $("feature-title").textContent = `Layer ${l.layer}, feature ${i}: ${f?.caption ?? "left out of this page"}`;
  for (const [id, step] of [["previous", -1], ["next", 1]]) {
    let other = i;
    do other = (other + step + l.rate.length) % l.rate.length; while (!l.features[other] && other !== i);
    $(id).setAttribute("href", href(layer, other));
  }
  const fired = Math.round(l.rate[i] * l.rows);
  body.replaceChildren(make("p", {}, fired
    ? said(`Fires on ${fired.toLocaleString("en")} of ${l.rows.toLocaleString("en")} characters (${percent(l.rate[i])}); mean ${short(l.mean[i])}, largest ${short(l.max[i])}.`)
    : "Never fires on this text."));
  if (!fired || !f) return;
  if (f.again) {
    const [seeds, share, cosine, jaccard] = f.again, times = Math.round(share * seeds);
    body.append(make("p", {}, `${times ? `Found in ${times} of ${seeds} other seeds` : "Of this seed alone"}: the most alike decoder row has cosine ${figure2(cosine)}, the most alike firing Jaccard ${figure2(jaccard)} (means over the seeds).`));
  }

  const contexts = make("div", { class: "card" }, make("h3", {}, "Contexts"));
  for (const [level, rows] of d3.group(f.contexts, (c) => c[8])) {
    contexts.append(make("p", { class: "soft" }, level), make("ol", { class: "contexts" }, ...rows.map((c) => make("li", {},
      make("span", { class: "soft" }, `text ${c[0]}, ${c[1]}`), contextText(c), make("span", { class: "soft" }, short(c[7]))))));
  }
  body.append(contexts);

  const [first, counts] = f.histogram, starts = l.edges.slice(first, first + counts.length), edges = d3.range(counts.length);
  const histogram = chart(`How often feature ${i} has which value`, {
    width: 520, height: 200, x: { type: "log", label: "value" }, y: { label: said("characters"), grid: true },
    marks: [Plot.rectY(edges, { x1: (j) => starts[j], x2: (j) => starts[j + 1] ?? starts[j] * 1.09, y: (j) => counts[j], fill: accent, inset: 0.5 }), Plot.ruleY([0])],
  });
  const grid = make("div", { class: "columns" });
  grid.append(make("figure", {}, make("h3", {}, "Values"), histogram));
  const concepts = f.concepts.map(([number, run]) => {
    const concept = l.concepts[number];
    return [make("a", { href: "#/concepts", title: concept.title }, concept.name), ` ${figure2(run)}`];
  });
  grid.append(make("div", {},
    make("h3", {}, "Finds, run score"), concepts.length ? chips(concepts) : make("p", { class: "soft" }, "No concept from 0.2 on."),
    ...(f.promotes.length ? [make("h3", {}, "Promotes"), chips(f.promotes.map(([c, v]) => `${visible(c)} ${d3.format("+.2f")(v)}`)),
    make("h3", {}, "Suppresses"), chips(f.suppresses.map(([c, v]) => `${visible(c)} ${d3.format("+.2f")(v)}`))] : []),
    make("h3", {}, "Fires together with"),
    chips(f.together.map(([other, share, lift]) => [link(layer, other), ` ${words(l, other)}, ${d3.format(".0%")(share)}, ${d3.format(".1f")(lift)} × chance`])),
    make("h3", {}, "Nearest by decoder"),
    chips(f.nearest.map(([other, cosine]) => [link(layer, other), ` ${words(l, other)}, ${figure2(cosine)}`]))));
  grid.append(make("figure", {}, make("h3", {}, said("Characters")), bars(f.characters.map((r) => [visible(r[0]), r[1], r[2]]), said(`Characters on which feature ${i} fires`))));
  grid.append(make("figure", {}, make("h3", {}, "Place in the word"), bars(f.places, `Places in the word at which feature ${i} fires`)));
  if (f.match) {
    const [byDecoder, cosine, byFiring, jaccard] = f.match;
    grid.append(make("div", {}, make("h3", {}, `In layer ${data.layers[layer + 1].layer}`), chips([
      ["most alike decoder row ", link(layer + 1, byDecoder), ` ${figure2(cosine)}`],
      ["fires most with it ", link(layer + 1, byFiring), said(` on ${d3.format(".0%")(jaccard)} of either's characters`)]])));
  }
  if (f.causal) {
    const c = f.causal;
    grid.append(make("div", {}, make("h3", {}, "Without it"), make("p", {}, c.positions
      ? said(`At ${c.positions.toLocaleString("en")} damaged characters on which it fires, right at the first guess ${d3.format(".1%")(c.top1_before)} → ${d3.format(".1%")(c.top1_after)}; probability of the true character ${figure3(c.probability_before)} → ${figure3(c.probability_after)}; ${c.guesses_changed} guesses change.`)
      : said("It fires on no damaged character."))));
  }
  body.append(grid);
}

// ---- concepts

function conceptTable(layer) {
  const l = data.layers[layer], score = (v) => (v === null ? "–" : figure2(v));
  const head = ["concept", "best feature, and others", "n", "run", "95 %", "random", "windows", "neurons", "precision", "recall", "char", "word", "AUROC"];
  const rows = l.concepts.map((c) => {
    const best = c.best[0];
    const numbers = [c.instances.toLocaleString("en"), make("strong", {}, figure2(best.run)), `${figure2(best.low)}–${figure2(best.high)}`,
      score(c.random), score(c.windows), score(c.neurons), ...[best.precision, best.recall, best.character, best.word, best.auroc].map(figure2)];
    return make("tr", { class: c.clear ? "clear" : null },
      make("th", { scope: "row", title: c.source }, c.clear ? `✓ ${c.name}` : c.name, make("div", { class: "soft" }, `${c.title} (${c.source}), ${percent(c.share)} of the text`)),
      make("td", { class: "caption" }, link(layer, best.feature), `: ${words(l, best.feature)}; `, ...c.best.slice(1, 4).flatMap((other) => [link(layer, other.feature), " "])),
      ...numbers.map((value) => make("td", { class: "number" }, value)));
  });
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Concepts, layer ${l.layer}` }, make("table", { class: "concepts" },
    make("caption", {}, `Layer ${l.layer}. ✓ a feature finds it clearly better than random directions do.`),
    make("thead", {}, make("tr", {}, ...head.map((title, i) => make("th", { scope: "col", class: i > 1 ? "number" : null }, title)))),
    make("tbody", {}, ...rows)));
}

// ---- layers

function showLayers(body) {
  const points = data.layers.flatMap((l) => l.concepts.map((c) => ({
    layer: l.layer, name: c.name, about: c.about, run: c.best[0].run, gain: c.best[0].run - (c.windows ?? 0), feature: c.best[0].feature,
  })));
  for (const [about, some] of d3.group(points, (p) => p.about)) {
    body.append(make("h3", {}, about), make("div", { class: "columns" }, ...[["run", "best run score"], ["gain", "run score above the best window of text"]].map(([key, label]) => {
      // more lines than eight cannot be told apart; the table has them all
      const names = d3.groupSort(some, (ps) => -d3.max(ps, (p) => p[key]), (p) => p.name).slice(0, 8);
      const shown = some.filter((p) => names.includes(p.name));
      return make("figure", {}, chart(`${label} of concepts of ${about}, by layer`, {
        width: 560, height: 260, x: { label: "layer", ticks: data.layers.map((l) => l.layer), tickFormat: "d" }, y: { label, grid: true },
        color: { domain: names, scheme: "tableau10", legend: true },
        marks: [
          Plot.line(shown, { x: "layer", y: key, z: "name", stroke: "name", strokeWidth: 2 }),
          Plot.dot(shown, { x: "layer", y: key, fill: "name", tip: true, title: (p) => `${p.name}, layer ${p.layer}: ${figure3(p[key])}` }),
        ],
      }));
    })));
    const table = make("table", { class: "small" }, make("caption", {}, "Run score of the best feature"),
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "concept"), ...data.layers.map((l) => make("th", { scope: "col", class: "number" }, `layer ${l.layer}`)))),
      make("tbody", {}, ...d3.groups(some, (p) => p.name).map(([name, ps]) => make("tr", {}, make("th", { scope: "row" }, name),
        ...data.layers.map((l, number) => {
          const p = ps.find((q) => q.layer === l.layer);
          return make("td", { class: "number" }, ...(p ? [figure2(p.run), " (", link(number, p.feature), ")"] : ["–"]));
        })))));
    body.append(make("div", { class: "scroll" }, table));
  }
  body.append(make("h3", {}, "Features matched across layers"));
  data.layers.slice(0, -1).forEach((l, number) => {
    const next = data.layers[number + 1];
    const rows = l.features.map((f, i) => ({ i, match: f?.match, fired: l.rate[i] * l.rows })).filter((r) => r.match && r.fired >= 20);
    const best = d3.sort(rows, (r) => -r.match[3]).slice(0, 25);
    body.append(make("div", { class: "columns" },
      make("figure", {}, chart(`Decoder cosine and co-firing of features of layer ${l.layer} with layer ${next.layer}`, {
        width: 520, height: 340, x: { label: "cosine of the most alike decoder row" }, y: { label: "co-firing (Jaccard) with its best partner" },
        marks: [Plot.dot(rows, { x: (r) => r.match[1], y: (r) => r.match[3], r: 2, fill: accent, fillOpacity: 0.5, tip: true, title: (r) => `feature ${r.i} → ${r.match[2]}` })],
      }), make("figcaption", {}, `Layer ${l.layer} to ${next.layer}: features that fire on at least 20 ${data.unit}s.`)),
      make("div", { class: "scroll" }, make("table", { class: "small" }, make("caption", {}, `Firing most alike, layer ${l.layer} to ${next.layer}`),
        make("thead", {}, make("tr", {}, ...["feature", "fires with", "Jaccard", "alike by decoder", "cosine"].map((t) => make("th", { scope: "col", class: "number" }, t)))),
        make("tbody", {}, ...best.map((r) => make("tr", {}, ...[link(number, r.i), link(number + 1, r.match[2]), figure2(r.match[3]), link(number + 1, r.match[0]), figure2(r.match[1])].map((v) => make("td", { class: "number" }, v)))))))));
  });
}

// ---- the pictures of the answers

const pictures = {
  scatter: (a) => chart(a.caption, {
    width: 520, height: 340, marginRight: 30, x: { label: "recall: share of them it fires on →", tickFormat: "%" }, y: { label: "↑ precision: share of its firings on them", tickFormat: "%", domain: [0, 1] },
    marks: [Plot.ruleY([a.chart.base], { strokeDasharray: "4 3" }),
      Plot.text([a.chart.base], { y: (d) => d, frameAnchor: "right", dy: -7, text: () => "share of the text" }),
      Plot.dot(a.chart.points, { x: "1", y: "2", r: 2.5, fill: accent, fillOpacity: 0.45, tip: true, title: (p) => `feature ${p[0]}: precision ${percent(p[2])}, recall ${percent(p[1])}` }),
      Plot.text(a.chart.named, { x: "1", y: "2", text: (p) => String(p[0]), dy: -9, fontWeight: "bold" })],
  }),
  shares: (a) => chart(a.caption, {
    width: 520, height: 300, x: { label: a.chart.x, tickFormat: "%" }, y: { label: "features", grid: true },
    marks: [Plot.rectY(a.chart.shares, Plot.binX({ y: "count" }, { x: (d) => d, thresholds: 25, domain: [0, 1], fill: accent })),
      Plot.ruleX([a.chart.base], { strokeDasharray: "4 3", strokeWidth: 2 }), Plot.ruleY([0]),
      Plot.text([a.chart.base], { x: (d) => d, frameAnchor: "top", textAnchor: "start", dx: 5, text: () => "share of the text" })],
  }),
  dumbbell: (a) => chart(a.caption, {
    width: 520, height: 24 * a.chart.rows.length + 80, marginLeft: 230, x: { label: "run score on held-out texts", zero: true, grid: true }, y: { label: null, domain: a.chart.rows.map((r) => r[0]) },
    color: { legend: true, domain: ["feature", "beside it"], range: ["var(--accent)", "var(--soft)"] },
    marks: [Plot.ruleY(a.chart.rows.filter((r) => r.length > 3), { x1: (r) => r[3], x2: (r) => r[4], y: (r) => r[0], stroke: accent, strokeWidth: 5, strokeOpacity: 0.3 }),
      Plot.link(a.chart.rows, { x1: (r) => r[2], x2: (r) => r[1], y: (r) => r[0], strokeWidth: 2, strokeOpacity: 0.5 }),
      Plot.dot(a.chart.rows, { x: (r) => r[2], y: (r) => r[0], fill: () => "beside it", r: 4 }),
      Plot.dot(a.chart.rows, { x: (r) => r[1], y: (r) => r[0], fill: () => "feature", r: 5, tip: true, title: (r) => `${r[0]}: ${figure2(r[1])}, beside it ${figure2(r[2])}` })],
  }),
  changes: (a) => chart(a.caption, {
    width: 520, height: 60 * a.chart.rows.length + 80, marginLeft: 90, x: { label: "named features", grid: true }, y: { label: null },
    color: { legend: true, domain: ["found again", "not found again", "new"], range: ["var(--accent)", "var(--soft)", "rgb(var(--fire))"] },
    marks: [Plot.barX(a.chart.rows.flatMap((r) => ["found again", "not found again", "new"].map((kind, k) => ({ pair: `layer ${r[0]}`, kind, n: r[k + 1] }))),
      { x: "n", y: "pair", fill: "kind", tip: true }), Plot.ruleX([0])],
  }),
  densities: (a) => chart(a.caption, {
    width: 520, height: 300, x: { type: "log", label: said("share of the characters a feature fires on") }, y: { label: "features", grid: true },
    marks: [Plot.rectY(a.chart.bins, { x1: "0", x2: "1", y: "2", fill: accent, inset: 0.5 }), Plot.ruleY([0])],
  }),
};

// ---- views, by the address behind #

const built = new Set();
function once(name, build) { if (!built.has(name)) { built.add(name); build(); } }

// view -> how it is shown, from the rest of the address' path and what stands after its question mark
const views = {
  answers: () => {},
  features: () => showTable(),
  feature: ([layerName, feature]) => {
    const layer = Math.max(0, data.layers.findIndex((l) => String(l.layer) === layerName));
    const i = Number(feature), n = data.layers[layer].rate.length;
    state.layer = layer;
    if ($("layer")) $("layer").value = layer;
    showFeature(layer, Number.isInteger(i) && i >= 0 && i < n ? i : 0);
    $("feature-title").focus();
    scrollTo(0, 0);
  },
  concepts: () => once("concepts", () => $("concepts-body").append(...data.layers.map((_, layer) => conceptTable(layer)))),
  layers: () => once("layers", () => showLayers($("layers-body"))),
};

function show() {
  const cut = location.hash.indexOf("?"), query = cut < 0 ? "" : location.hash.slice(cut + 1);
  const [, view, ...rest] = (cut < 0 ? location.hash : location.hash.slice(0, cut)).split("/");
  const known = Object.keys(views).filter((id) => $(id));
  const current = known.includes(view) ? view : data.live ? "restore" : "answers";
  for (const id of known) $(id).hidden = id !== current;
  for (const a of document.querySelectorAll("nav a")) {
    const here = a.getAttribute("href") === `#/${current === "feature" ? "features" : current}`;
    if (here) a.setAttribute("aria-current", "page"); else a.removeAttribute("aria-current");
  }
  views[current](rest, query);
}

document.querySelectorAll("[data-chart]").forEach((place) => {
  const answer = data.answers[Number(place.dataset.chart)];
  if (answer.chart) place.prepend(pictures[answer.chart.kind](answer));
});
const again = () => { state.limit = 200; showTable(); };
$("search").addEventListener("input", again);
$("sparse").addEventListener("change", again);
document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
$("layer")?.addEventListener("change", (event) => { state.layer = Number(event.target.value); again(); });
$("more").addEventListener("click", () => { state.limit += 400; showTable(); });
$("theme").addEventListener("click", (event) => {
  const dark = event.target.getAttribute("aria-pressed") !== "true";
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  event.target.setAttribute("aria-pressed", String(dark));
});
addEventListener("keydown", (event) => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName ?? "");
  if (event.key === "/" && !typing) { event.preventDefault(); location.hash = "#/features"; show(); $("search").focus(); }
  if (!typing && !$("feature").hidden && (event.key === "ArrowLeft" || event.key === "ArrowRight")) {
    location.hash = $(event.key === "ArrowLeft" ? "previous" : "next").getAttribute("href");
  }
});
addEventListener("hashchange", show);
const prefersDark = matchMedia("(prefers-color-scheme: dark)").matches;
$("theme").setAttribute("aria-pressed", String(prefersDark));
addEventListener("DOMContentLoaded", show);  // after the scripts that follow this one
