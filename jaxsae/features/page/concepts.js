"use strict";
// Concepts, and how they change over the layers.

function conceptTable(layer) {
  const l = data.layers[layer];
  const head = [
    ["concept"], ["best feature, and others"], ["n", said("stretches of it in the texts on which is scored")],
    ["run", "run score of the best feature: precision of characters, recall of stretches"], ["95 %", "interval of the run score"],
    ["random", "run score of the best of as many random directions"], ["windows", "of the best of the commonest windows of up to three characters"],
    ["neurons", "of the best of the layer's feed-forward neurons"], ["precision", "share of the feature's firings that are on it"],
    ["recall", "share of its stretches that the feature finds"], ["char", "F1 of single characters"], ["word", "F1 of words"],
    ["AUROC", "how often the feature is larger on a character that has it than on one that has not"],
  ];
  const rows = l.concepts.map((c) => {
    const best = c.best[0], runs = [best.run, c.random, c.windows, c.neurons];
    const [run, ...others] = runs.map((v) => (v === null ? "–" : v === d3.max(runs) ? make("strong", {}, figure2(v)) : figure2(v)));
    const numbers = [c.instances.toLocaleString("en"), run, `${figure2(best.low)}–${figure2(best.high)}`, ...others,
      ...[best.precision, best.recall, best.character, best.word, best.auroc].map(figure2)];
    return make("tr", { class: c.clear ? "clear" : null },
      make("th", { scope: "row", title: c.source }, c.clear ? `✓ ${c.name}` : c.name, make("div", { class: "soft" }, `${c.title} (${c.source}), ${percent(c.share)} of the text`)),
      make("td", { class: "caption" }, link(layer, best.feature), `: ${words(l, best.feature)}; `, ...c.best.slice(1, 4).flatMap((other) => [link(layer, other.feature), " "])),
      ...numbers.map((value) => make("td", { class: "number" }, value)));
  });
  return make("div", {}, make("p", { class: "soft" }, `Layer ${l.layer}. ✓ a feature finds it clearly better than random directions do. Bold: the best of feature, random directions, windows and neurons. What a window finds as well is there in the text, without a model.`), scrolling(`Concepts, layer ${l.layer}`, make("table", { class: "concepts" },
    make("thead", {}, make("tr", {}, ...head.map(([name, title], i) => make("th", { scope: "col", class: i > 1 ? "number" : null, title: title && said(title) }, name)))),
    make("tbody", {}, ...rows))));
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
      return make("figure", {}, opening(chart(`${label} of concepts of ${about}, by layer`, {
        width: 560, height: 260, x: { label: "layer", ticks: data.layers.map((l) => l.layer), tickFormat: "d" }, y: { label, grid: true },
        color: { domain: names, scheme: "tableau10", legend: true },
        marks: [
          Plot.line(shown, { x: "layer", y: key, z: "name", stroke: "name", strokeWidth: 2 }),
          Plot.dot(shown, { x: "layer", y: key, fill: "name", tip: true, title: (p) => `${p.name}, layer ${p.layer}: ${figure3(p[key])}` }),
        ],
      }), (p) => `#/feature/${p.layer}/${p.feature}`));
    })));
    const table = make("table", { class: "small" }, make("caption", {}, "Run score of the best feature"),
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "concept"), ...data.layers.map((l) => make("th", { scope: "col", class: "number" }, `layer ${l.layer}`)))),
      make("tbody", {}, ...d3.groups(some, (p) => p.name).map(([name, ps]) => make("tr", {}, make("th", { scope: "row" }, name),
        ...data.layers.map((l, number) => {
          const p = ps.find((q) => q.layer === l.layer);
          return make("td", { class: "number" }, ...(p ? [figure2(p.run), " (", link(number, p.feature), ")"] : ["–"]));
        })))));
    body.append(scrolling(`Run scores of concepts of ${about}`, table));
  }
  body.append(make("h3", {}, "Features matched across layers"));
  data.layers.slice(0, -1).forEach((l, number) => {
    const next = data.layers[number + 1];
    const rows = l.features.map((f, i) => ({ i, match: f?.match, fired: l.rate[i] * l.rows })).filter((r) => r.match && r.fired >= 20);
    const best = d3.sort(rows, (r) => -r.match[3]).slice(0, 25);
    body.append(make("div", { class: "columns" },
      make("figure", {}, opening(chart(`Decoder cosine and co-firing of features of layer ${l.layer} with layer ${next.layer}`, {
        width: 520, height: 340, x: { label: "cosine of the most alike decoder row" }, y: { label: "co-firing (Jaccard) with its best partner" },
        marks: [Plot.dot(rows, { x: (r) => r.match[1], y: (r) => r.match[3], r: 2, fill: accent, fillOpacity: 0.5, tip: true, title: (r) => `feature ${r.i} → ${r.match[2]}` })],
      }), (r) => href(number, r.i)), make("figcaption", {}, `Layer ${l.layer} to ${next.layer}: features that fire on at least 20 ${data.unit}s.`)),
      scrolling(`Firing most alike, layer ${l.layer} to ${next.layer}`, make("table", { class: "small" }, make("caption", {}, `Firing most alike, layer ${l.layer} to ${next.layer}`),
        make("thead", {}, make("tr", {}, ...["feature", "fires with", "Jaccard", "alike by decoder", "cosine"].map((t) => make("th", { scope: "col", class: "number" }, t)))),
        make("tbody", {}, ...best.map((r) => make("tr", {}, ...[link(number, r.i), link(number + 1, r.match[2]), figure2(r.match[3]), link(number + 1, r.match[0]), figure2(r.match[1])].map((v) => make("td", { class: "number" }, v)))))))));
  });
}
