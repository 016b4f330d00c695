"use strict";
// The pictures of the answers.

const pictures = {
  scatter: (a) => opening(chart(a.caption, {
    width: 520, height: 340, marginRight: 30, x: { label: "recall: share of their stretches it finds →", tickFormat: "%" }, y: { label: "↑ precision: share of its firings on them", tickFormat: "%", domain: [0, 1] },
    marks: [Plot.ruleY([a.chart.base], { strokeDasharray: "4 3" }),
      Plot.text([a.chart.base], { y: (d) => d, frameAnchor: "right", dy: -7, text: () => "share of the text" }),
      Plot.dot(a.chart.points, { x: "1", y: "2", r: 2.5, fill: accent, fillOpacity: 0.45, tip: true, title: (p) => `feature ${p[0]}: precision ${percent(p[2])}, recall ${percent(p[1])}` }),
      Plot.text(a.chart.named, { x: "1", y: "2", text: (p) => String(p[0]), dy: -9, fontWeight: "bold" })],
  }), (p) => `#/feature/${a.chart.layer}/${p[0]}`),
  shares: (a) => chart(a.caption, {
    width: 520, height: 300, x: { label: a.chart.x, tickFormat: "%" }, y: { label: "features", grid: true },
    marks: [Plot.rectY(a.chart.shares, Plot.binX({ y: "count" }, { x: (d) => d, thresholds: 25, domain: [0, 1], fill: accent })),
      Plot.ruleX([a.chart.base], { strokeDasharray: "4 3", strokeWidth: 2 }), Plot.ruleY([0]),
      Plot.text([a.chart.base], { x: (d) => d, frameAnchor: "top", textAnchor: "start", dx: 5, text: () => "share of the text" })],
  }),
  dumbbell: (a) => opening(chart(a.caption, {
    width: 520, height: 24 * a.chart.rows.length + 80, marginLeft: 24 + 7 * d3.max(a.chart.rows, (r) => r[0].length), x: { label: "run score on held-out texts", zero: true, grid: true }, y: { label: null, domain: a.chart.rows.map((r) => r[0]) },
    color: { legend: true, domain: ["feature", "best window, neuron or direction"], range: ["var(--accent)", "var(--soft)"] },
    marks: [Plot.ruleY(a.chart.rows.filter((r) => r.length > 3), { x1: (r) => r[3], x2: (r) => r[4], y: (r) => r[0], stroke: accent, strokeWidth: 5, strokeOpacity: 0.3 }),
      Plot.link(a.chart.rows, { x1: (r) => r[2], x2: (r) => r[1], y: (r) => r[0], strokeWidth: 2, strokeOpacity: 0.5 }),
      // one mark for both kinds: of two, the one that the pointer leaves would forget what it has come to
      Plot.dot(a.chart.rows.flatMap((row) => [[2, "best window, neuron or direction", 4], [1, "feature", 5]].map(([value, kind, r]) => ({ row, x: row[value], kind, r }))), {
        x: "x", y: (d) => d.row[0], fill: "kind", r: (d) => d.r, tip: true, title: ({ row }) => `${row[0]}: ${figure2(row[1])}, best window, neuron or direction ${figure2(row[2])}`,
      })],
    r: { type: "identity" },
  }), (d) => `#/feature/${a.chart.opens[a.chart.rows.indexOf(d.row)].join("/")}`),
  changes: (a) => chart(a.caption, {
    width: 520, height: 60 * a.chart.rows.length + 80, marginLeft: 90, x: { label: "named features", grid: true }, y: { label: null },
    color: { legend: true, domain: ["found again", "not found again", "new"], range: ["var(--accent)", "var(--soft)", "rgb(var(--fire))"] },
    marks: [Plot.barX(a.chart.rows.flatMap((r) => ["found again", "not found again", "new"].map((kind, k) => ({ pair: `layer ${r[0]}`, kind, n: r[k + 1] }))),
      { x: "n", y: "pair", fill: "kind", tip: true }), Plot.ruleX([0])],
  }),
  densities: (a) => chart(a.caption, {
    width: 520, height: 300, x: { type: "log", label: said("share of the characters a feature fires on"), tickFormat: (share) => `${Number((100 * share).toPrecision(3))} %` }, y: { label: "features", grid: true },
    marks: [Plot.rectY(a.chart.bins, { x1: "0", x2: "1", y: "2", fill: accent, inset: 0.5 }), Plot.ruleY([0])],
  }),
};

// a discovery's strongest place, below its name
document.querySelectorAll("[data-example]").forEach((place) => {
  const [layerName, i] = place.dataset.example.split("/"), feature = data.layers[layerNumber(layerName)].features[i];
  if (firstPlace(feature)) place.append(contextText(feature, firstPlace(feature)));
});

document.querySelectorAll("[data-chart]").forEach((figure) => {
  const answer = data.answers[Number(figure.dataset.chart)];
  if (answer.chart) figure.prepend(pictures[answer.chart.kind](answer));
});
