"use strict";
// What all views stand on. Texts reach the page as text nodes only, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const percent = d3.format(".2%"), figure3 = d3.format(".3f"), figure2 = d3.format(".2f"), short = d3.format(".3~g");
const counted = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
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
const visible = (character) => (character === " " ? "␣" : character);
const several = data.layers.length > 1;
const href = (layer, feature) => `#/feature/${data.layers[layer].layer}/${feature}`;
const link = (layer, feature) => make("a", { href: href(layer, feature) }, String(feature));
const named = (layer, feature) => `${several ? `layer ${data.layers[layer].layer}, ` : ""}feature ${feature}`;
const layerNumber = (name) => Math.max(0, data.layers.findIndex((l) => String(l.layer) === name));

// a caption without its figures
const words = (l, i) => (l.features[i]?.caption ?? "left out of this page").replace(/ \(\d+% of .*$/, "");

function chips(items) {
  return make("ul", { class: "chips" }, ...items.map((item) => make("li", {}, ...[].concat(item))));
}

function scrolling(label, table) {
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, table);
}

function chart(description, options) {
  options.width = Math.min(options.width, Math.max(300, document.documentElement.clientWidth - 40));  // letters keep their size
  if (options.x) options.x = { labelOffset: 38, ...options.x };
  const plot = Plot.plot({ marginBottom: 44, style: { background: "none", fontSize: "12px" }, ariaLabel: description, ...options });
  const svg = plot.tagName.toLowerCase() === "svg" ? plot : plot.querySelector("svg");
  svg.setAttribute("role", "img");
  return plot;
}

// A chart whose dots open what they show: a click opens the dot that the tip speaks of. `at`: the address of its datum.
// The tables beside it lead to the same places by keyboard.
function opening(plot, at) {
  plot.addEventListener("pointerdown", (event) => event.stopImmediatePropagation(), true);  // else the tip would stay
  plot.addEventListener("input", () => { plot.style.cursor = plot.value ? "pointer" : ""; });
  plot.addEventListener("click", () => { if (plot.value) location.hash = at(plot.value); });
  return plot;
}
