"use strict";
// The view that asks the server: a text, its broken places, and why one is restored as it is. Stands after page.js, and what is before it.
const examples = [
  "a-na a-bi-ia qí-bí-m# um-ma ri-ba-tum-ma šamaš ù mar### da-ri-iš u-mi li-ba-al-[...]-ka",
  "BE i-na ZAG pa-da-nim ka-ak-## LÚ.KÚR-am i-sa-ak-#i-ip [...] LUGAL i-na e-kal-li-šu",
  "É.GAL aš-šur-PAP-A MAN GAL MAN dan-nu MAN KI# MAN KUR aš-#ur DUMU [...] MAN KUR aš-šur-ma",
];
const token = new URLSearchParams(location.search).get("token");
const pageName = crypto.getRandomValues(new Uint32Array(4)).join("-");
const DELAY = 300;  // milliseconds before what is typed is asked, and before it is said that an answer is waited for
const MANY = 12;  // latents that are shown at first

// what is shown, and where from: `base` is the answer about the text, `changed` that with latents set
const now = { text: null, position: null, candidate: null, base: null, changed: null, why: null, layer: 0, all: false };
const settings = new Map();  // "layer:feature" -> value
const usual = new Map();  // "layer:feature" -> the value that the explanation found

// ---- asking

const asking = {};
class Unanswered extends Error {}
function say(place, text, wrong = false) {
  $(place).textContent = text;
  $(place).classList.toggle("wrong", wrong);
}

// the answer; null where a newer question of the same kind has come, or where an error has been said
async function ask(kind, question, place, waiting) {
  asking[kind]?.abort();
  const mine = asking[kind] = new AbortController();
  const timer = setTimeout(() => say(place, waiting), DELAY);
  try {
    for (let tries = 0; ; tries++) {
      const response = await fetch(`/api/${kind}`, {
        method: "POST", signal: mine.signal, body: JSON.stringify(question), referrerPolicy: "no-referrer",
        headers: { "Content-Type": "application/json", "Authorization": `Bearer ${token}`, "Jaxsae-Page": pageName },
      }).catch((error) => { throw mine.signal.aborted ? error : new Unanswered("The server does not answer: it may have been ended."); });
      if (response.status === 409) return null;
      const answer = await response.json();
      if (response.status === 503 && tries < 5) {
        await new Promise((wake) => setTimeout(wake, 1000 * (Number(response.headers.get("Retry-After")) || 1)));
        continue;
      }
      if (!response.ok) throw new Unanswered(answer.error);
      if (mine.signal.aborted) return null;
      say(place, "");
      return answer;
    }
  } catch (error) {
    if (!(error instanceof Unanswered) && !mine.signal.aborted) throw error;
    if (asking[kind] === mine) say(place, error.message, true);
    return null;
  } finally {
    clearTimeout(timer);
  }
}

const asList = () => [...settings].map(([key, value]) => {
  const [layer, feature] = key.split(":").map(Number);
  return { layer, feature, value };
});

// ---- the address: text, position, candidate and what is set, so that Back works

function address({ text = now.text, position = now.position, candidate = now.candidate } = {}) {
  const query = new URLSearchParams({ text });
  if (position !== null) query.set("position", position);
  if (position !== null && candidate !== null) query.set("candidate", candidate);
  if (settings.size) query.set("set", [...settings].map(([key, value]) => `${key}:${value}`).join(","));
  return `#/restore?${query}`;
}

const remember = () => history.replaceState(history.state, "", address());
const open = (what) => { location.hash = address(what); };

async function showRestore(_, query) {
  if (query || now.text === null) {  // the view's own link shows it as it was left
    const wanted = new URLSearchParams(query), text = wanted.get("text") ?? examples[0], position = wanted.get("position");
    if (text !== now.text) Object.assign(now, { text, base: null, why: null });
    if ($("typed").value !== text) $("typed").value = text;
    now.position = /^\d+$/.test(position ?? "") ? Number(position) : null;
    now.candidate = wanted.get("candidate");
    settings.clear();
    for (const one of (wanted.get("set") ?? "").split(",").filter((part) => /^\d+:\d+:\d+(\.\d+)?$/.test(part))) {
      settings.set(one.split(":").slice(0, 2).join(":"), Number(one.split(":")[2]));
    }
  }
  if (!query) remember();  // else Back would lead to an address without a text
  await Promise.all([answerText(), answerWhy()]);
}

async function answerText() {
  const text = now.text;
  if (!now.base) {
    now.changed = null;
    draw();
    $("line").ariaBusy = String(text.trim() !== "");
    if (!text.trim()) { asking.restore?.abort(); say("said", ""); return; }
    const answer = await ask("restore", { text, fill: true }, "said", "reading …");
    if (text === now.text) $("line").ariaBusy = "false";
    if (!answer && text === now.text) $("line").hidden = true;
    if (!answer || text !== now.text) return;
    now.base = answer;
  }
  draw();
  if (settings.size || now.changed) apply(true);
}

async function answerWhy() {
  const { text, position, candidate } = now, key = JSON.stringify([text, position, candidate]);
  if (position === null || now.why?.key === key) { drawWhy(); return; }
  $("why").classList.add("stale");
  const question = { text, position, ...(candidate === null ? {} : { candidate }) };
  const near = now.why?.text === text && now.why.position === position ? now.why.parallels : undefined;
  const answer = await ask("explain", question, "why-said", "looking for the reasons …");
  if (key !== JSON.stringify([now.text, now.position, now.candidate])) return;
  if (!answer) { $("why").hidden = true; return; }
  now.why = { key, text, position, answer, parallels: near };
  now.all = false;
  now.layer = Math.min(now.layer, answer.layers.length - 1);
  usual.clear();
  for (const layer of answer.layers) for (const one of layer.latents.toReversed()) usual.set(`${layer.layer}:${one.feature}`, one.value);
  drawWhy();
  if (near) return;
  const found = await ask("parallels", { text, position }, "why-said", "looking for parallels …");
  if (found && now.why?.key === key) { now.why.parallels = found; drawParallels(); }
}

// One question at a time while a latent is dragged, then the newest: those between are never asked.
let applying = null, stale = false, whole = false;
function apply(fill) {
  stale = true;
  whole ||= fill;
  $("line").ariaBusy = "true";
  applying ??= (async () => {
    while (stale) {
      const fills = whole, text = now.text;
      stale = whole = false;
      const answer = settings.size ? await ask("restore", { text, settings: asList(), fill: fills }, "said", "computing …") : null;
      if (text !== now.text || !now.base || (settings.size && !answer)) continue;
      now.changed = answer;
      draw();
    }
  })().finally(() => { applying = null; $("line").ariaBusy = "false"; });
}

// ---- the text and its broken places

const shown = () => now.changed ?? now.base;
const share = d3.format(".0%");
const listed = (rows, name) => rows.slice(0, 5).map((row) => `${visible(row[name])} ${share(row.probability)}`).join(", ");
const gapAt = (answer, position) => answer?.gaps.find((gap) => gap.cleaned_start <= position && position < gap.cleaned_end);
// positions are those of `base`: with latents set, a gap may be read as longer or shorter, and what follows it has moved
function placeAt(answer, position) {
  const gap = gapAt(now.base, position), number = now.base?.gaps.indexOf(gap), same = gap && answer?.gaps[number];
  return same?.places.length === gap?.places.length ? same?.places[gap.places.findIndex((place) => place.position === position)] : undefined;
}
const unknown = (gap) => gap.lengths[0] !== gap.lengths[1];

function placeButton(position, rows, name, before, title) {
  const best = rows[0], moved = before && best && before[0]?.[name] !== best[name];
  const here = now.position !== null && (position === now.position || (name === "text" && gapAt(now.base, now.position) === gapAt(now.base, position)));
  const button = make("button", {
    type: "button", class: `place${name === "text" ? " gap" : ""}${moved ? " moved" : ""}`, "data-position": position,
    "aria-current": here ? "true" : null, title: `${title}${listed(rows, name)}${moved ? `; unchanged: ${listed(before, name)}` : ""}`,
    style: `--sure: ${best ? best.probability : 0}`,
  }, make("span", {}, best ? visible(best[name]) || "–" : "?"));
  button.addEventListener("click", () => open({ position, candidate: null }));
  return button;
}

function drawLine() {
  const answer = shown(), focused = document.activeElement?.closest?.("#line [data-position]")?.dataset.position;
  const coming = !answer && now.text.trim() !== "";  // what was there stays meanwhile, as a picture
  $("line").hidden = false;
  $("line").inert = coming;
  if (coming) return;
  $("line").replaceChildren();
  if (!answer) { $("line").append(make("span", { class: "soft" }, "Type or paste a text above.")); return; }
  const line = make("p", { class: "text line", lang: data.language_tag });
  let last = 0;
  const letters = [...answer.text];
  answer.gaps.forEach((gap, number) => {
    line.append(letters.slice(last, gap.start).join(""));
    last = gap.end;
    const base = now.base.gaps[number], original = now.changed ? base : null;
    if (unknown(gap)) {
      const fillings = gap.fillings.length ? gap.fillings : base.fillings;
      line.append(placeButton(base.cleaned_start, fillings, "text", original?.fillings, "gap of unknown length: "));
    } else gap.places.forEach((place, i) => line.append(placeButton(base.places[i].position, place.candidates, "character", original?.places[i].candidates, "")));
  });
  line.append(letters.slice(last).join(""));
  const hint = answer.gaps.length ? "Choose a place to see why it is restored so. The fainter, the less sure." : "Nothing is damaged here: put # for a character that cannot be read.";
  const copy = make("button", { type: "button", hidden: !answer.gaps.length }, "Copy");
  copy.addEventListener("click", () => navigator.clipboard.writeText(answer.restored).then(() => say("said", "copied"), () => say("said", answer.restored)));
  $("line").append(line, make("p", { class: "soft hint" }, hint, " ", copy));
  $("line").querySelector(`[data-position="${focused}"]`)?.focus();
}

// ---- what is changed

function drawChanges() {
  const [before, after] = [now.base, now.changed].map((answer) => placeAt(answer, now.position)?.candidates);
  const outcome = before && after ? `${listed(before.slice(0, 1), "character")} → ${listed(after.slice(0, 1), "character")}` : "";
  const rows = [...settings].map(([key, value]) => [key, usual.has(key) ? ` ${short(usual.get(key))} → ${short(value)} ` : ` = ${short(value)} `]);
  $("changes").hidden = !settings.size || !now.base;
  $("outcome").textContent = outcome;
  if ($("changed").dataset.rows === JSON.stringify(rows)) return;  // a button that is being pressed stays
  $("changed").dataset.rows = JSON.stringify(rows);
  $("changed").replaceChildren(...rows.map(([key, what]) => {
    const [layer, feature] = key.split(":"), remove = make("button", { type: "button", "aria-label": `undo layer ${layer}, feature ${feature}` }, "×");
    remove.addEventListener("click", () => { settings.delete(key); settled(); });
    return make("li", {}, make("a", { href: `#/feature/${layer}/${feature}` }, `layer ${layer}, ${feature}`), what, remove);
  }));
}
function settled() {
  remember();
  drawWhy();
  apply(true);
  if (!settings.size) { now.changed = null; draw(); }
}

function draw() {
  drawLine();
  drawChanges();
  drawCandidates();
}

// ---- why

function drawWhy() {
  const why = now.why, here = why && why.text === now.text && why.position === now.position;
  $("why").hidden = now.position === null || !why || why.text !== now.text;
  if (!here) return;
  $("why").classList.remove("stale");
  const a = why.answer;
  $("why-title").textContent = `Why ${visible(a.candidate)} rather than ${visible(a.against)}?`;
  $("why-figures").textContent = `Character ${a.position} of the text: ${visible(a.candidate)} has a probability of ${percent(a.probability)}, ${visible(a.against)} of ${percent(a.against_probability)}; their logits differ by ${d3.format("+.2f")(a.logit_difference)}.${settings.size ? " The reasons below are those of the unchanged model." : ""}`;
  drawCandidates();
  drawWords();
  drawLatents();
  drawParallels();
}

function bar(p, before) {
  return make("span", { class: "bar", "aria-hidden": "true" }, make("span", { class: "part", style: `--part: ${p}` }),
    before === undefined ? null : make("span", { class: "tick", style: `--part: ${before}` }));
}

function drawCandidates() {
  const [before, after] = [now.base, now.changed].map((answer) => placeAt(answer, now.position)?.candidates);
  if (!before) { $("candidates").replaceChildren(); $("fillings").replaceChildren(); return; }
  const old = new Map(before.map((row) => [row.character, row.probability])), fresh = new Map((after ?? before).map((row) => [row.character, row.probability]));
  const names = [...new Set([...before.slice(0, 8), ...(after ?? []).slice(0, 3)].map((row) => row.character))];
  const explained = now.why?.answer.candidate, focused = document.activeElement?.closest?.("#candidates [data-candidate]")?.dataset.candidate;
  $("candidates").replaceChildren(make("ul", { class: "candidates" }, ...names.map((name) => {
    const p = fresh.get(name) ?? 0, was = old.get(name) ?? 0;
    const figures = after ? `${share(was)} → ${share(p)}` : d3.format(".1%")(p);
    const button = make("button", { type: "button", "data-candidate": name, "aria-current": name === explained ? "true" : null, title: `explain ${visible(name)}` },
      make("span", { class: "letters" }, visible(name)), bar(p, after ? was : undefined), make("span", { class: "figure" }, figures));
    button.addEventListener("click", () => open({ candidate: name }));
    return make("li", {}, button);
  })));
  [...$("candidates").querySelectorAll("[data-candidate]")].find((one) => one.dataset.candidate === focused)?.focus();
  const gap = gapAt(now.base, now.position), changed = now.changed?.gaps[now.base.gaps.indexOf(gap)], fillings = (changed?.fillings.length ? changed : gap).fillings;
  if (gap.places.length < 2 && !unknown(gap)) { $("fillings").replaceChildren(); return; }
  const places = gap.places.map((place) => {
    const button = make("button", { type: "button", class: "letters", "aria-current": place.position === now.position ? "true" : null, title: listed(place.candidates, "character") }, visible(place.candidates[0].character));
    button.addEventListener("click", () => open({ position: place.position, candidate: null }));
    return make("li", {}, button);
  });
  $("fillings").replaceChildren(make("h4", {}, "The whole gap"),
    make("ul", { class: "candidates fillings" }, ...fillings.slice(0, 6).map((row) => make("li", {}, make("span", { class: "letters" }, row.text.replaceAll(" ", "␣") || "–"), bar(row.probability), make("span", { class: "figure" }, d3.format(".1%")(row.probability))))),
    make("p", { class: "soft" }, unknown(gap) ? `${gap.lengths[0]} to ${gap.lengths[1]} characters. Read as ${gap.places.length}, one by one:` : "Its characters, one by one:"), make("ul", { class: "chips" }, ...places));
}

const plain = (caption) => caption.replace(/ \(\d+% of .*$/, "");  // without its figures
const signed = d3.format("+.2f"), ratio = (v) => (v === null ? "–" : share(v));
const shaded = (effect, most) => ({ class: effect < 0 ? "against" : "for", style: `--level: ${Math.min(1, Math.abs(effect) / (most || 1))}` });

function drawWords() {
  const a = now.why.answer, most = d3.max(a.words, (word) => Math.abs(word.effect));
  const text = make("p", { class: "text", lang: data.language_tag }), letters = [...a.cleaned];
  let last = 0;
  const cut = (from, to) => {
    if (a.position < from || a.position >= to) return [letters.slice(from, to).join("")];
    return [letters.slice(from, a.position).join(""), make("span", { class: "asked", title: "the place that is explained" }, a.candidate), letters.slice(a.position + 1, to).join("")];
  };
  for (const word of d3.sort(a.words, (one) => one.start)) {
    text.append(...cut(last, word.start), make("span", { ...shaded(word.effect, most), title: `${word.word}: ${signed(word.effect)}` }, ...cut(word.start, word.end)));
    last = word.end;
  }
  text.append(...cut(last, letters.length));
  const head = ["word", "effect", "best without it"];
  $("words").replaceChildren(
    make("p", { class: "soft legend" }, make("span", { class: "for", style: "--level: 1" }, `speaks for ${visible(a.candidate)}`), " ", make("span", { class: "against", style: "--level: 1" }, `for ${visible(a.against)}`), " by how much the difference of the logits falls or grows without the word"),
    text,
    make("details", {}, make("summary", {}, "The words in figures"), make("div", { class: "scroll" }, make("table", { class: "small" },
      make("thead", {}, make("tr", {}, ...head.map((title, i) => make("th", { scope: "col", class: i === 1 ? "number" : null }, title)))),
      make("tbody", {}, ...a.words.map((word) => make("tr", {}, make("td", { class: "letters" }, word.word), make("td", { class: "number" }, signed(word.effect)), make("td", { class: "letters" }, visible(word.candidate_after ?? "")))))))));
}

function effectBar(effect, most) {
  return make("span", { class: `effect ${effect < 0 ? "against" : "for"}`, "aria-hidden": "true" }, make("span", { style: `--part: ${Math.min(1, Math.abs(effect) / (most || 1))}` }));
}

function slider(layer, one) {
  const key = `${layer}:${one.feature}`, most = one.value > 0 ? 2 * one.value : 1;
  const value = settings.get(key) ?? one.value;
  const range = make("input", { type: "range", min: 0, max: most, step: most / 100, value, "data-key": key, "aria-label": `value of layer ${layer}, feature ${one.feature}` });
  const output = make("output", {});
  const write = () => { output.textContent = settings.has(key) ? `${short(one.value)} → ${short(settings.get(key))}` : short(one.value); };
  range.addEventListener("input", () => {
    const set = Number(range.value);
    // a change is made after one layer
    for (const other of [...settings.keys()]) { if (!other.startsWith(`${layer}:`)) settings.delete(other); }
    if (Math.abs(set - one.value) < most / 150) settings.delete(key); else settings.set(key, Number(set.toPrecision(4)));
    // one latent may be listed at several places: it is set at all of them
    for (const same of document.querySelectorAll(`[data-key="${key}"]`)) { if (same !== range) same.value = set; same.dispatchEvent(new Event("written")); }
    drawChanges();
    apply(false);
  });
  range.addEventListener("written", write);
  range.addEventListener("change", () => { remember(); apply(true); });
  write();
  return make("div", { class: "slider" }, range, output);
}

function drawLatents() {
  const { layers, cleaned } = now.why.answer, l = layers[now.layer];
  if (!l) { $("latents").replaceChildren(make("p", { class: "soft" }, "No autoencoder of any layer.")); return; }
  const most = d3.max(l.latents, (one) => Math.abs(one.effect)), rows = now.all ? l.latents : l.latents.slice(0, MANY);
  const known = data.layers.find((one) => one.layer === l.layer), caption = (one) => one.caption ?? known?.features[one.feature]?.caption ?? "";
  const letters = [...cleaned], around = (at) => [make("span", { class: "soft" }, letters.slice(Math.max(0, at - 6), at).join("")), make("strong", {}, visible(letters[at] ?? "")), make("span", { class: "soft" }, letters.slice(at + 1, at + 7).join(""))];
  const body = make("ul", { class: "latents" }, ...rows.map((one) => make("li", {},
    make("div", { class: "what", title: caption(one) }, make("a", { href: `#/feature/${l.layer}/${one.feature}` }, String(one.feature)), ` ${plain(caption(one))} `,
      make("span", { class: "where" }, `at ${one.position}  `, make("span", { class: "letters" }, ...around(one.position))),
      ...(known?.features[one.feature]?.strongest.slice(0, 1).map((at) => make("div", { class: "context", title: "where it fires most strongly" }, contextText(known.features[one.feature], at, 24, 15))) ?? [])),
    slider(l.layer, one), make("div", { class: "much" }, effectBar(one.effect, most), make("span", { class: "figure" }, signed(one.effect))))));
  const more = make("button", { type: "button", hidden: now.all || l.latents.length <= MANY }, `Show all ${l.latents.length}`);
  more.addEventListener("click", () => { now.all = true; drawLatents(); });
  $("latents").replaceChildren(layers.length > 1 ? depthTable(layers) : "", make("p", { class: "soft" },
    `Layer ${l.layer}, ${known?.name ?? l.sae}. What its autoencoder leaves out carries ${signed(l.error_effect)} of the difference (${ratio(l.error_share)})${Math.abs(l.error_share) >= 0.5 ? ": most of the reason is not in these latents" : ""}. Drag a value to see what would be restored.`), make("div", { class: "head", "aria-hidden": "true" }, ...["latent, and where it fires", "value", "effect"].map((title) => make("span", {}, title))), body, more, faithfulness(l));
}

function depthTable(layers) {
  const head = ["layer", "left out carries", "share", "latents for 80 %", "strongest latent"];
  return make("div", { class: "scroll" }, make("table", { class: "small depth" }, make("caption", {}, "Over the depth of the model"),
    make("thead", {}, make("tr", {}, ...head.map((title, i) => make("th", { scope: "col", class: i < 4 ? "number" : null }, title)))),
    make("tbody", {}, ...layers.map((l, i) => {
      const choose = make("button", { type: "button", "aria-pressed": String(i === now.layer), "aria-label": `the latents of layer ${l.layer}` }, String(l.layer));
      choose.addEventListener("click", () => { now.layer = i; now.all = false; drawLatents(); $("latents").querySelector("[aria-pressed=true]").focus(); });
      const first = l.latents[0];
      return make("tr", {}, make("td", { class: "number" }, choose), ...[signed(l.error_effect), ratio(l.error_share), String(l.faithfulness?.needed?.latents ?? "–")].map((v) => make("td", { class: "number" }, v)),
        make("td", {}, first ? `${first.feature} ${plain(first.caption ?? "")}, ${signed(first.effect)}` : "–"));
    }))));
}

function faithfulness(l) {
  const f = l.faithfulness;
  if (!f) return "";
  const kinds = ["latents", "neurons", "random"].filter((kind) => f[kind]);
  const points = kinds.flatMap((kind) => f.counts.map((count, i) => ({ kind, count, kept: f[kind][i] }))).filter((p) => p.count > 0 && p.kept !== null);
  return make("figure", {}, chart(`Share of the difference that the strongest latents carry, layer ${l.layer}`, {
    width: 520, height: 240, x: { type: "log", label: "how many", ticks: f.counts.filter((n) => n > 0), tickFormat: "d" }, y: { label: "share of the difference", tickFormat: "%", grid: true, domain: [Math.max(-1, d3.min([0, ...points.map((p) => p.kept)])), Math.min(2, d3.max([1, ...points.map((p) => p.kept)]))] },
    color: { legend: true, domain: kinds, range: kinds.map((kind) => ({ latents: accent, neurons: "rgb(var(--fire))", random: "var(--soft)" })[kind]) },
    marks: [Plot.ruleY([0]), Plot.ruleY([1], { strokeDasharray: "4 3" }), Plot.line(points, { x: "count", y: "kept", stroke: "kind", strokeWidth: 2, clip: true }), Plot.dot(points, { x: "count", y: "kept", fill: "kind", r: 3, clip: true })],
  }), make("figcaption", {}, `How much of the difference the strongest carry alone${f.needed?.latents ? `: ${f.needed.latents} latents, 80 %` : ""}.`));
}

function drawParallels() {
  const found = now.why?.parallels;
  if (!found) { $("parallels").replaceChildren(make("p", { class: "soft" }, "…")); return; }
  const rows = found.parallels ?? [];
  $("parallels").replaceChildren(rows.length ? make("ol", { class: "parallels" }, ...rows.map((one) => make("li", { class: "card" },
    make("span", { class: "soft" }, `text ${one.text_number}, from ${one.start}: ${figure2(one.score)}`), make("p", { class: "text", lang: data.language_tag }, one.passage),
    chips((one.shared ?? []).map((s) => [make("a", { href: `#/feature/${found.layer ?? data.layers[0].layer}/${s.feature}` }, String(s.feature)), ` ${plain(s.caption)}`])))))
    : make("p", { class: "soft" }, found.parallels ? "None." : "No index of passages was given."), rows.length && found.by ? make("p", { class: "soft" }, `Found by ${found.by}.`) : "");
}

// ---- what a person does

let typing;
$("typed").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    history.replaceState(history.state, "", `#/restore?${new URLSearchParams({ text: $("typed").value })}`);
    show();
  }, DELAY);
});
$("reset").addEventListener("click", () => { settings.clear(); settled(); });
$("example").addEventListener("click", () => {
  const next = examples[(examples.indexOf(now.text) + 1) % examples.length];
  settings.clear();
  open({ text: next, position: null });
});
addEventListener("hashchange", () => {
  $("back").hidden = !now.why || $("feature").hidden;
  if (now.why) $("back").firstChild.setAttribute("href", address());
});
views.restore = showRestore;
