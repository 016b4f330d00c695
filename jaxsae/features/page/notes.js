"use strict";
// Bookmarks and notes: they stay in this browser, by what the page is about, and go out and come in as JSON.

const notes = {
  key: `jaxsae notes: ${data.title}; ${data.layers.map((l) => l.name).join(", ")}`,
  kept: {},  // "layer/feature" -> { star, note }
  problem: "",  // why nothing can be kept

  // another tab may have changed them
  read() {
    try {
      const kept = JSON.parse(localStorage.getItem(this.key) ?? "{}");
      this.kept = kept && typeof kept === "object" ? kept : {};
    } catch {
      this.problem = "This browser keeps nothing for this page: export what you note before you leave.";
    }
  },
  write() {
    try {
      localStorage.setItem(this.key, JSON.stringify(this.kept));
      this.problem = "";
    } catch {
      this.problem = "This browser keeps nothing for this page, or has no room: export what you note before you leave.";
    }
    $("notes-said").textContent = this.problem;
  },
  of(layer, i) {
    const one = this.kept[`${data.layers[layer].layer}/${i}`];
    return { star: one?.star === true, note: typeof one?.note === "string" ? one.note : "" };
  },
  has(layer, i) {
    const one = this.of(layer, i);
    return one.star || one.note !== "";
  },
  change(layer, i, what) {
    if (!this.problem) this.read();
    const key = `${data.layers[layer].layer}/${i}`, one = { ...this.of(layer, i), ...what };
    if (one.star || one.note) this.kept[key] = one; else delete this.kept[key];
    this.write();
  },

  exported() {
    const rows = data.layers.flatMap((l, layer) => d3.range(l.rate.length).filter((i) => this.has(layer, i)).map((i) => ({
      layer: l.layer, feature: i, bookmarked: this.of(layer, i).star, note: this.of(layer, i).note, caption: l.features[i]?.caption ?? null,
    })));
    return { about: data.title, text: data.text, saes: data.layers.map((l) => l.name), notes: rows };
  },
  // how many were taken; those of features that are not here are left out
  taken(content) {
    let count = 0;
    for (const row of Array.isArray(content?.notes) ? content.notes : []) {
      const layer = data.layers.findIndex((l) => l.layer === row?.layer);
      if (layer < 0 || !Number.isInteger(row.feature) || !(row.feature in data.layers[layer].rate)) continue;
      this.change(layer, row.feature, { star: row.bookmarked === true, note: String(row.note ?? "") });
      count += 1;
    }
    return count;
  },
};
notes.read();

function noteForm(layer, i) {
  const { star, note } = notes.of(layer, i);
  const button = make("button", { type: "button", id: "star", "aria-pressed": String(star) }, star ? "★ Bookmarked" : "☆ Bookmark");
  const area = make("textarea", { id: "note", rows: 2, placeholder: "A note, kept in this browser", "aria-label": "Note" });
  area.value = note;
  button.addEventListener("click", () => {
    const on = !notes.of(layer, i).star;
    notes.change(layer, i, { star: on });
    button.setAttribute("aria-pressed", String(on));
    button.textContent = on ? "★ Bookmarked" : "☆ Bookmark";
    say.textContent = notes.problem;
  });
  area.addEventListener("input", () => { notes.change(layer, i, { note: area.value }); say.textContent = notes.problem; });
  const say = make("output", { class: "soft", "aria-live": "polite" }, notes.problem);
  return make("div", { class: "note" }, button, area, say);
}

$("export").addEventListener("click", () => {
  const content = new Blob([JSON.stringify(notes.exported(), null, 1)], { type: "application/json" });
  const address = URL.createObjectURL(content);
  make("a", { href: address, download: "jaxsae_notes.json" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
});
$("import").addEventListener("click", () => $("import-file").click());
$("import-file").addEventListener("change", async () => {
  const [file] = $("import-file").files;
  if (!file) return;
  let said = "";
  try {
    said = `${counted(notes.taken(JSON.parse(await file.text())), "note")} taken from ${file.name}`;
  } catch {
    said = `${file.name} is no JSON as this page exports it`;
  }
  $("import-file").value = "";
  showTable();
  $("notes-said").textContent = [said, notes.problem].filter(Boolean).join("; ");
});
addEventListener("storage", (event) => {
  if (event.key !== notes.key) return;
  notes.read();
  if (!$("features").hidden) showTable();
});
