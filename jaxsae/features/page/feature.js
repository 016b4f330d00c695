"use strict";
// One feature.

function bars(rows, description) {
  return chart(description, {
    width: 420, height: 26 * rows.length + 64, marginLeft: 110, marginRight: 80, x: { label: "share of its firings", tickFormat: "%", ticks: 5 },
    y: { label: null, domain: rows.map((r) => r[0]) },
    marks: [Plot.barX(rows, { x: (r) => r[1], y: (r) => r[0], fill: accent }), Plot.ruleX([0]),
      Plot.text(rows, { x: (r) => r[1], y: (r) => r[0], text: (r) => `on ${d3.format(".1%")(r[2])} of them`, dx: 4, textAnchor: "start" })],
  });
}

// bins of one octave are equally wide in the value, so that on its logarithm they shrink: what is drawn is their density
function density(counts, edges) {
  return counts.map((count, j) => count / Math.log2(edges[j + 1] / edges[j]));
}

function valueChart(l, i) {
  const [first, counts] = l.features[i].histogram, edges = l.edges.slice(first, first + counts.length + 1), heights = density(counts, edges);
  return chart(`How feature ${i}'s values are spread`, {
    width: 520, height: 220, x: { type: "log", label: "value", ticks: 5, tickFormat: "~g" }, y: { label: said("characters per octave of the value"), grid: true },
    marks: [Plot.rectY(d3.range(counts.length), {
      x1: (j) => edges[j], x2: (j) => edges[j + 1], y: (j) => heights[j], fill: accent, insetLeft: 0.5, insetRight: 0.5,
      title: (j) => said(`${short(edges[j])} to ${short(edges[j + 1])}: ${counted(counts[j], "character")}`), tip: true,
    }), Plot.ruleY([0])],
  });
}

function contextsOf(layer, i) {
  const f = data.layers[layer].features[i], card = make("div", { class: "card" }, make("h3", {}, "Contexts"));
  const part = (title, places) => card.append(make("h4", {}, title), contextList(layer, i, places));
  if (f.strongest.length) part("strongest", f.strongest);
  f.intervals.forEach(([fired, places], number) => {
    const low = 100 * (1 - (number + 1) / f.intervals.length), high = 100 * (1 - number / f.intervals.length);
    if (fired) part(`${low} to ${high} % of its largest value: ${counted(fired, "firing")}${places.length ? "" : ", all of them above"}`, places);
  });
  return card;
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
    ? said(`Fires on ${fired.toLocaleString("en")} of ${counted(l.rows, "character")} (${percent(l.rate[i])}); mean ${short(l.mean[i])}, largest ${short(l.max[i])}.`)
    : "Never fires on this text."));
  if (f?.again && fired) {
    const [seeds, share, cosine, jaccard] = f.again, times = Math.round(share * seeds);
    body.append(make("p", {}, `${times ? `Found again in ${seeds > 1 ? `${times} of ${seeds} other seeds` : "the other seed"}` : "In no other seed"}: the most alike decoder row has cosine ${figure2(cosine)}, the most alike firing Jaccard ${figure2(jaccard)} (means over the seeds).`));
  }
  body.append(noteForm(layer, i));
  if (!fired || !f) return;
  body.append(contextsOf(layer, i));

  const grid = make("div", { class: "columns" });
  grid.append(make("figure", {}, make("h3", {}, "Values"), valueChart(l, i)));
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
  grid.append(make("figure", {}, make("h3", {}, said("Characters")), bars(f.characters.map((r) => [visible(r[0]), r[1], r[2]]), said(`Characters on which feature ${i} fires`)),
    f.classes.length ? make("figcaption", {}, `Half of its firings or more are on ${f.classes.join(" and ")}.`) : null));
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
      ? said(`At ${counted(c.positions, "damaged character")} on which it fires, right at the first guess ${d3.format(".1%")(c.top1_before)} → ${d3.format(".1%")(c.top1_after)}; probability of the true character ${figure3(c.probability_before)} → ${figure3(c.probability_after)}; ${c.guesses_changed} guesses change.`)
      : said("It fires on no damaged character."))));
  }
  body.append(grid);
}
