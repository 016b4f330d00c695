"use strict";
// Searching: every spelling of a sign finds it, and what was found is marked.

const LETTERS = { "ŋ": "g", "ʾ": "'", "ʿ": "'", "ʼ": "'", "’": "'", "‘": "'", "j": "g", "×": "x", "ₓ": "x" };
const PAIRS = { "sz": "s", "sh": "s", "s,": "s", "t,": "t" };  // of ASCII transliteration, and English habit
const INDEX = { "\u0301": "2", "\u0300": "3" };  // an acute stands for the index 2, a grave for 3

// A text as it is compared: small letters without diacritics, once without and once with the indices of signs, which end
// the sign: `kúr` is `kur` and `kur2`, `šè` is `se` and `se3`, as `sze3` and `she3` are. `from` has, for each character,
// where the one that it comes from begins and ends in the text.
function spellings(text) {
  const plain = { text: "", from: [] }, indexed = { text: "", from: [] };
  let index = null, at = 0, before = null;
  const add = (to, letter, start, end) => {
    to.text += letter;
    for (let i = 0; i < letter.length; i++) to.from.push([start, end]);
  };
  const widen = (end) => { for (const { from } of [plain, indexed]) if (from.length) from[from.length - 1][1] = end; };
  const endSign = () => { if (index) add(indexed, ...index); index = null; before = null; };
  for (const character of text) {
    const start = at, end = at += character.length;
    for (const one of character.normalize("NFD").toLowerCase()) {
      if (/\p{M}/u.test(one)) {
        widen(end);
        if (INDEX[one] && before) index = [INDEX[one], start, end];
        continue;
      }
      const digit = "₀₁₂₃₄₅₆₇₈₉".indexOf(one), letter = digit >= 0 ? String(digit) : LETTERS[one] ?? one;
      const pair = before && PAIRS[before + one];
      if (pair) {  // both are one letter
        widen(end);
        before = pair;
        continue;
      }
      if (!/\p{L}/u.test(letter)) endSign();
      const bare = digit >= 0 ? [indexed] : [plain, indexed];
      for (const to of bare) add(to, letter, start, end);
      before = /\p{L}/u.test(letter) ? one : null;
    }
  }
  endSign();
  return { plain, indexed };
}

// what is looked for, as it is compared; "class: vowels" looks among the classes alone
function wanted(typed, fields) {
  const [, field, rest] = /^\s*(\w+):(.*)$/s.exec(typed) ?? [];
  const among = fields.includes(field?.toLowerCase()) ? field.toLowerCase() : null;
  return { among, of: spellings((among ? rest : typed).trim()).indexed.text };
}

// where it stands in a text: [start, end] of each place, by the spelling with indices and by that without
function hits(text, sought) {
  if (!sought) return [];
  const out = [], { plain, indexed } = spellings(text);
  for (const one of [plain, indexed]) {
    for (let i = one.text.indexOf(sought); i >= 0; i = one.text.indexOf(sought, i + sought.length)) {
      const parts = one.from.slice(i, i + sought.length);
      out.push([d3.min(parts, (p) => p[0]), d3.max(parts, (p) => p[1])]);
    }
  }
  return d3.sort(out, (hit) => hit[0]).filter(([start], i, all) => !i || start >= all[i - 1][1]);
}

// a text with its hits marked, as nodes
function withHits(text, sought) {
  const out = [];
  let last = 0;
  for (const [start, end] of hits(text, sought)) {
    if (start > last) out.push(text.slice(last, start));
    out.push(make("mark", { class: "hit" }, text.slice(start, end)));
    last = end;
  }
  return [...out, text.slice(last)];
}
