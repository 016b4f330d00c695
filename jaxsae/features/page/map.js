"use strict";
// The map: features whose decoder rows point alike lie side by side. What it shows the table shows too, for the keyboard.

const MOST_FAMILIES = 8;  // more colours cannot be told apart
const NONE = "unclear", OTHER = "other";
const colourings = {
  class: [said("the class of characters it fires on"), (l, f) => f.classes[0] ?? NONE],
  caption: ["what its caption speaks of", (l, f) => f.kind],
  character: [said("the character it fires on most"), (l, f) => (f.characters.length ? visible(f.characters[0][0]) : NONE)],
  concept: ["the concept it finds best", (l, f) => (f.concepts.length ? l.concepts[f.concepts[0][0]].name : NONE)],
};
const mapped = { layer: 0, colour: "class" };

function openMap(query) {
  query.delete("theme");
  if (query.size) {
    mapped.layer = query.has("layer") ? layerNumber(query.get("layer")) : 0;
    mapped.colour = query.get("colour") in colourings ? query.get("colour") : "class";
  }
  if ($("map-layer")) $("map-layer").value = mapped.layer;
  $("map-colour").value = mapped.colour;
  showMap();
  rememberMap();
}

function rememberMap() {
  const query = new URLSearchParams();
  if (several) query.set("layer", data.layers[mapped.layer].layer);
  if (mapped.colour !== "class") query.set("colour", mapped.colour);
  const address = `#/map${query.size ? `?${query}` : ""}`;
  document.querySelector("nav a[data-view=map]").setAttribute("href", address);
  replaceAddress(address);
}

function showMap() {
  const l = data.layers[mapped.layer], [title, familyOf] = colourings[mapped.colour];
  const dots = l.features.flatMap((f, i) => (f?.place ? [{ i, x: f.place[0], y: f.place[1], family: familyOf(l, f) }] : []));
  const sizes = d3.rollup(dots, (some) => some.length, (dot) => dot.family);
  const clear = [...sizes.keys()].filter((name) => name !== NONE);
  const families = d3.sort(clear, (name) => -sizes.get(name)).slice(0, MOST_FAMILIES);
  for (const dot of dots) if (dot.family !== NONE && !families.includes(dot.family)) dot.family = OTHER;
  const greys = [OTHER, NONE].filter((name) => dots.some((dot) => dot.family === name));
  const width = Math.min($("map-body").clientWidth, Math.max(420, innerHeight - 260)), most = d3.max(dots, (dot) => dot.y) || 1;
  const drawn = opening(chart(`Map of the features of layer ${l.layer}, coloured by ${title}`, {
    width, height: Math.round(Math.max(0.5, most) * width) + 20, margin: 10, marginBottom: 10, x: { axis: null, domain: [0, 1] }, y: { axis: null, domain: [0, Math.max(0.5, most)] },
    color: { legend: true, domain: [...families, ...greys], range: [...d3.schemeObservable10.slice(0, families.length), ...greys.map((name) => (name === NONE ? "var(--line)" : "var(--soft)"))] },
    marks: [Plot.dot(d3.sort(dots, (dot) => (greys.includes(dot.family) ? 0 : 1)), {
      x: "x", y: "y", fill: "family", r: Math.max(2, Math.min(4.5, width / 200)), tip: true,
      title: (dot) => `feature ${dot.i}\n${words(l, dot.i)}`,
    })],
  }), (dot) => href(mapped.layer, dot.i));
  drawn.style.width = `${width}px`;  // else the legend would be wider
  $("map-body").replaceChildren(drawn, familyList(l, dots, families));
  $("map-said").textContent = `${counted(dots.length, "feature")} of layer ${l.layer} that fire, laid out by their decoder rows: those that write alike into the model lie side by side. Only nearness means something, neither direction nor the size of gaps.`;
}

// each family with those of its features that tell most: for the keyboard, and to read
function familyList(l, dots, families) {
  const of = d3.group(dots, (dot) => dot.family);
  return make("dl", {}, ...families.flatMap((name) => {
    const best = d3.sort(of.get(name), (dot) => rank(l).get(dot.i)).slice(0, 5);
    return [make("dt", {}, `${name}, ${counted(of.get(name).length, "feature")}`),
      make("dd", {}, ...best.flatMap((dot) => [link(mapped.layer, dot.i), ` ${words(l, dot.i)}`, make("br")]))];
  }));
}

$("map-colour").append(...Object.entries(colourings).map(([name, [title]]) => make("option", { value: name }, title)));
for (const id of ["map-layer", "map-colour"]) {
  $(id)?.addEventListener("change", () => {
    if ($("map-layer")) mapped.layer = Number($("map-layer").value);
    mapped.colour = $("map-colour").value;
    showMap();
    rememberMap();
  });
}
