"use strict";
// Texts with a feature's firings in them. data.texts: number -> [name, tokens, damage as beginnings and lengths].
// A place of a feature is [text, position, value].

const BEFORE = 30, BEHIND = 18;  // tokens around a place

// how strongly a feature fires on each token of a text, 0 to 9 of its largest value: see `encoded` in intervals.py
function levelsOf(feature, sample) {
  const out = [];
  for (const one of feature?.fires[sample] ?? "") {
    if (/[1-9]/.test(one)) out.push(Number(one));
    else if (/[a-z]/i.test(one)) {
      const silent = one >= "a" ? one.charCodeAt(0) - 96 : 26 * (one.charCodeAt(0) - 64);
      for (let i = 0; i < silent; i++) out.push(0);
    }
  }
  return out;
}

function damageOf([, , runs]) {
  const out = new Set();
  for (let i = 0; i < runs.length; i += 2) for (let j = 0; j < runs[i + 1]; j++) out.add(runs[i] + j);
  return out;
}

// tokens of a text from one position to another, shaded by a feature's firings; `sought` is marked, `at` is outlined
function textNode(sample, feature, from, to, at, sought) {
  const text = data.texts[sample], tokens = [...text[1]].slice(from, to), levels = levelsOf(feature, sample), holes = damageOf(text);
  if (from > 0 && tokens.length && data.unit !== "character") tokens[0] = tokens[0].replace(/^ (?=.)/, "");  // it begins the line
  const node = make("span", { class: "text", lang: data.language_tag });
  const found = hits(tokens.join(""), sought);
  if (from > 0) node.append("…");
  let run = "", offset = 0;
  const flush = () => { if (run) node.append(run); run = ""; };
  tokens.forEach((token, number) => {
    const i = from + number, level = levels[i] ?? 0, start = offset, end = offset += token.length;
    const hit = found.some((one) => one[0] < end && start < one[1]);
    if (!level && !holes.has(i) && !hit) { run += token; return; }
    flush();
    const classes = [level ? "fires" : "", i === at && level ? "peak" : "", holes.has(i) ? "damaged" : "", hit ? "hit" : ""].filter(Boolean).join(" ");
    const attributes = { class: classes, title: holes.has(i) ? said("damaged: the model does not see it") : null };
    if (level) attributes.style = `--level: ${level / 11}`;
    node.append(make(level || hit ? "mark" : "span", attributes, token));
  });
  flush();
  if (to < text[1].length) node.append("…");
  return node;
}

function contextText(feature, [sample, position], before = BEFORE, behind = BEHIND, sought = "") {
  const node = textNode(sample, feature, Math.max(0, position - before), Math.min(data.texts[sample][1].length, position + behind + 1), position, sought);
  node.style.setProperty("--lead", position <= before ? before - position + 1 : 0);  // so that places stand below each other
  return node;
}

// places as a list; each leads to its whole text
function contextList(layer, i, places) {
  const feature = data.layers[layer].features[i];
  return make("ol", { class: "contexts" }, ...places.map((place) => {
    const [sample, position, value] = place;
    const to = `#/text/${sample}?feature=${data.layers[layer].layer}/${i}&at=${position}`;
    return make("li", {}, make("a", { href: to, title: "the whole text" },
      make("span", { class: "soft" }, `${data.texts[sample][0].replace(/ \(text \d+\)$/, "")}, ${position}`), contextText(feature, place), make("span", { class: "soft value" }, short(value))));
  }));
}

// ---- a whole text

function showText(sample, query) {
  const text = data.texts[sample], [layerName, number] = (query.get("feature") ?? "").split("/"), at = query.get("at");
  const layer = layerNumber(layerName), i = Number(number), feature = number ? data.layers[layer].features[i] : undefined;
  $("text-back").replaceChildren(...(feature ? [make("a", { href: href(layer, i) }, `← ${named(layer, i)}`)] : [make("a", { href: "#/features" }, "← all features")]));
  if (!text) {
    $("text-title").textContent = "There is no such text here";
    $("text-body").replaceChildren(make("p", {}, "This page has the texts from which contexts are shown."));
    return;
  }
  $("text-title").textContent = text[0][0].toUpperCase() + text[0].slice(1);
  const damaged = damageOf(text).size, fired = feature ? levelsOf(feature, sample).filter((level) => level).length : 0;
  const known = feature?.fires[sample];
  const legend = !feature ? "" : known === undefined ? `Where ${named(layer, i)} fires in it is not known here.`
    : `Shaded: where ${named(layer, i)} fires (${words(data.layers[layer], i)}), the darker, the more strongly${known[0] === "~" ? "; of this text only what is near its contexts is told" : `: on ${fired}`}.`;
  $("text-body").replaceChildren(
    make("p", { class: "soft" }, said(`${counted(text[1].length, "character")}${damaged ? `, of which ${damaged.toLocaleString("en")} damaged (underlined: shown as they were before)` : ""}. ${legend}`)),
    make("p", { class: "card whole" }, textNode(sample, feature, 0, text[1].length, at === null ? -1 : Number(at), "")));
}
