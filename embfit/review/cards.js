"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const element = (tag, name, ...content) => {
    const made = document.createElement(tag);
    if (name) made.className = name;
    made.append(...content); // strings become text, never markup
    return made;
  };
  const SKIP = "skip";
  const cards = data.cards.map(([query, asked, place, shared, facts, verdict]) => {
    const [document, title, text] = data.documents[place];
    return { id: JSON.stringify([query, document]), query, asked, document, title, text, shared, facts, verdict };
  });
  const places = new Map(cards.map((card, place) => [card.id, place]));
  const labels = new Map([...data.answers.map(([value, , label]) => [value, label]), [SKIP, "Skipped"]]);
  const hides = `${data.place} hides`;
  let decided = new Map(); // id of a card → answer, in the order of the decisions
  let at = 0;

  // What the browser keeps. Another page of the same source may have cards that this one lacks: they stay there.
  const trouble = (text) => {
    $("trouble").textContent = text;
    $("trouble").hidden = !text;
  };
  const load = () => {
    try {
      decided = new Map(JSON.parse(localStorage.getItem(data.place) ?? "[]"));
    } catch {
      trouble("This browser keeps nothing of what you decide; export before you close the page.");
    }
  };
  const keep = () => {
    try {
      localStorage.setItem(data.place, JSON.stringify([...decided]));
    } catch {
      trouble("This browser did not keep your last decision; export before you close the page.");
    }
  };
  const remembered = (name) => {
    try {
      return localStorage.getItem(name);
    } catch {
      return null;
    }
  };

  // Words as embfit's BM25 sees them: in scripts without spaces, each character with its marks is one.
  const UNSPACED = "\\p{Script=Han}\\p{Script=Hiragana}\\p{Script=Katakana}\\p{Script=Thai}\\p{Script=Lao}\\p{Script=Khmer}\\p{Script=Myanmar}ーｰ";
  const LETTER = `(?![${UNSPACED}])[\\p{L}\\p{N}_]`;
  const WORD = new RegExp(`[${UNSPACED}]\\p{M}*|${LETTER}(?:\\p{M}|${LETTER})*`, "gu");
  const marked = (into, text, shared) => {
    let end = 0;
    const content = [];
    for (const found of text.matchAll(WORD)) {
      if (!shared.has(found[0].toLowerCase().normalize("NFC"))) continue;
      content.push(text.slice(end, found.index), element("mark", "fair", found[0]));
      end = found.index + found[0].length;
    }
    into.replaceChildren(...content, text.slice(end));
  };

  const count = () => cards.filter((card) => decided.has(card.id)).length;
  const show = (focus = true) => {
    const card = cards[at];
    const shared = new Set(card.shared);
    const answer = decided.get(card.id);
    $("place").textContent = `Card ${at + 1} of ${cards.length}`;
    $("state").textContent = answer === undefined ? "" : labels.get(answer);
    $("state").className = `state ${typeof answer === "number" ? `g${answer}` : answer ?? ""}`;
    $("query").textContent = card.asked;
    $("document").textContent = card.document;
    marked($("title"), card.title, shared);
    $("title").hidden = !card.title;
    marked($("text"), card.text, shared);
    $("facts").replaceChildren(...card.facts.map(([name, value]) => element("div", "", element("dt", "", name), element("dd", "", value))));
    if (card.verdict !== null && !$("blind").checked) {
      $("facts").append(element("div", "verdict-fact", element("dt", "", "Filters:"), element("dd", "", data.verdicts[card.verdict][0])));
    }
    for (const [value, key] of data.answers) {
      document.querySelector(`[data-key="${key}"]`).setAttribute("aria-pressed", String(answer === value));
    }
    $("done").value = count();
    $("count").textContent = `${count()} of ${cards.length} decided`;
    if (focus) {
      scrollTo(0, 0);
      $("card").focus({ preventScroll: true });
    }
    agree();
  };
  const agree = () => {
    if (!$("agreed")) return;
    const counts = new Map(Object.keys(data.verdicts).map((name) => [name, [0, 0]]));
    for (const card of cards) {
      const answer = decided.get(card.id);
      if (answer === undefined || answer === SKIP) continue;
      const found = counts.get(card.verdict);
      found[0] += 1;
      found[1] += answer === data.verdicts[card.verdict][1];
    }
    const rows = [...counts].map(([name, found]) => [data.verdicts[name][0], ...found]);
    const sum = (place) => rows.reduce((whole, row) => whole + row[place], 0);
    const line = ([name, all, alike]) => {
      const row = element("tr", "", ...[all, alike, all ? `${Math.round((100 * alike) / all)} %` : "–"].map((cell) => element("td", "", String(cell))));
      const head = element("th", "", name);
      head.scope = "row";
      row.prepend(head);
      return row;
    };
    $("agreed").replaceChildren(...[...rows, ["together", sum(1), sum(2)]].map(line));
  };
  const say = (text) => ($("said").textContent = text);

  const decide = (value) => {
    const card = cards[at];
    decided.delete(card.id); // so that the newest decision is the last
    decided.set(card.id, value);
    keep();
    const said = labels.get(value);
    const after = [...cards.keys()].map((step) => (at + 1 + step) % cards.length); // this card is the last of them
    const next = after.find((place) => !decided.has(cards[place].id));
    if (next !== undefined) at = next;
    show();
    say(next === undefined ? `${said}. All cards are decided; press e to export.` : `${said}. Card ${at + 1} of ${cards.length}.`);
  };
  const undo = () => {
    const last = [...decided.keys()].filter((id) => places.has(id)).at(-1);
    if (last === undefined) return say("There is nothing to undo.");
    decided.delete(last);
    keep();
    at = places.get(last);
    show();
    say(`Undone. Card ${at + 1} of ${cards.length}.`);
  };
  const move = (by) => {
    at = Math.min(cards.length - 1, Math.max(0, at + by));
    show();
    say(`Card ${at + 1} of ${cards.length}.`);
  };
  const line = (card) => {
    const answer = decided.get(card.id);
    const found = { query_id: card.query, document_id: card.document, query: card.asked };
    return JSON.stringify(data.kind === "review" ? { ...found, answer } : { ...found, grade: answer === SKIP ? null : answer });
  };
  const save = () => {
    const found = cards.filter((card) => decided.has(card.id));
    if (!found.length) return say("Nothing is decided yet.");
    const link = element("a", "");
    link.href = URL.createObjectURL(new Blob(found.map((card) => `${line(card)}\n`), { type: "application/jsonl" }));
    link.download = data.file;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    say(`${data.file} has ${found.length} decisions.`);
  };
  const hide = () => {
    if (!$("blind")) return;
    $("blind").checked = !$("blind").checked;
    $("blind").dispatchEvent(new Event("change"));
  };
  const help = () => ($("help").open ? $("help").close() : $("help").showModal());

  const acts = new Map([
    ...data.answers.map(([value, key]) => [key, () => decide(value)]),
    [" ", () => decide(SKIP)],
    ["Backspace", undo],
    ["ArrowLeft", () => move(-1)],
    ["ArrowRight", () => move(1)],
    ["e", save],
    ["f", hide],
    ["?", help],
  ]);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if ($("help").open && key !== "?") return;
    if (key === " " && event.target.matches("button, input")) return; // the browser presses it
    const act = acts.get(key);
    if (!act) return;
    event.preventDefault();
    if (event.repeat && !key.startsWith("Arrow")) return; // a key held down decides one card
    act();
  });
  for (const button of document.querySelectorAll("[data-key]")) button.addEventListener("click", acts.get(button.dataset.key));
  $("blind")?.addEventListener("change", () => {
    try {
      localStorage.setItem(hides, $("blind").checked ? "1" : "");
    } catch {} // it is as it was when the page is opened again
    show(false);
  });
  addEventListener("storage", (event) => {
    if (event.key !== data.place) return;
    load();
    show(false);
  });

  load();
  if ($("blind")) $("blind").checked = Boolean(remembered(hides));
  at = Math.max(0, cards.findIndex((card) => !decided.has(card.id)));
  show(false);
})();
