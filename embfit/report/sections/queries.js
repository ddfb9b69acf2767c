"use strict";
(() => {
  const root = document.getElementById("queries");
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  const control = (name) => root.querySelector(`[name=${name}]`);
  const list = root.querySelector(".queries");
  const more = root.querySelector(".more");
  const PAGE = 20; // queries added at once
  let shown = PAGE;

  const element = (tag, name, ...content) => {
    const made = document.createElement(tag);
    if (name) made.className = name;
    made.append(...content); // strings become text, never markup
    return made;
  };
  const offer = (name, options, chosen) => {
    for (const [value, label] of options) control(name).append(new Option(label, value, false, value === chosen));
  };
  const signed = (value) => {
    const text = Math.abs(value).toFixed(2);
    return Number(text) === 0 ? "0.00" : (value > 0 ? "+" : "−") + text;
  };
  const outcome = (change) => (change > 1e-9 ? "better" : change < -1e-9 ? "worse" : "");
  const left = () => data.systems.indexOf(control("left").value);
  const right = () => data.systems.indexOf(control("right").value);
  const change = (query) => query.values[right()] - query.values[left()];

  const orders = {
    change: ["largest change", (query) => -Math.abs(change(query))],
    gain: ["largest gain", (query) => -change(query)],
    loss: ["largest loss", (query) => change(query)],
    worst: ["lowest on the right", (query) => query.values[right()]],
  };

  const percent = (part) => `${Math.round(100 * part)} %`;
  const marked = ([text, part]) => {
    if (!part) return text;
    const mark = element("mark", part >= 0.1 ? "strong" : part >= 0.04 ? "fair" : "", text);
    mark.title = percent(part);
    return mark;
  };
  const matchedWords = (told) => {
    const words = told.words.map(([word, found, part]) =>
      element("span", "", word === found ? word : `${word} → ${found ?? "own token"}`, element("b", "", ` ${percent(part)}`)),
    );
    return element("span", "matched", ...words, element("span", "", "own tokens", element("b", "", ` ${percent(told.own)}`)));
  };

  const documentItem = (place, about, number, grade, told) => {
    const found = data.documents[place];
    const item = element("li", grade ? "relevant" : "");
    const text = told ? told.pieces.map(marked) : [found.text || "(empty)"];
    const content = element("span", "", ...text, element("span", "about", [found.id, ...about].join(" · ")));
    if (told) content.append(matchedWords(told));
    item.append(element("span", "place", number), content);
    return item;
  };

  const ranking = (query, system, grades) => {
    const items = query.ranked[system].map(([place, score], index) =>
      documentItem(
        place,
        [score.toFixed(3), ...(grades.has(place) ? [`relevant, grade ${grades.get(place)}`] : [])],
        String(index + 1),
        grades.has(place),
        query.matched?.[system][index],
      ),
    );
    const title = element("h3", "", data.systems[system]);
    title.append(element("span", "", ` ${query.values[system].toFixed(3)}`));
    return element("div", "", title, items.length ? element("ol", "", ...items) : "nothing retrieved");
  };

  const opened = (query) => {
    const grades = new Map(query.relevant.map(([place, grade]) => [place, grade]));
    const position = (rank) => (rank === null ? "not found" : `rank ${rank}`);
    const wanted = query.relevant.map(([place, grade, ranks]) =>
      documentItem(
        place,
        [left(), right()].map((system) => `${data.systems[system]}: ${position(ranks[system])}`),
        String(grade),
        false,
      ),
    );
    return element(
      "div",
      "opened",
      element("div", "wanted", element("h3", "", "Relevant, by grade"), element("ul", "", ...wanted)),
      element("div", "rankings", ranking(query, left(), grades), ranking(query, right(), grades)),
    );
  };

  const entry = (query) => {
    const gain = change(query);
    const details = element("details");
    const number = left() === right() ? query.values[right()].toFixed(2) : signed(gain);
    details.append(
      element(
        "summary",
        "",
        element("span", `change ${outcome(gain)}`, number),
        element("span", "asked", query.text),
        element("span", "tag", query.subset ?? ""),
      ),
    );
    details.addEventListener("toggle", () => details.open && details.children.length === 1 && details.append(opened(query)));
    return element("li", "", details);
  };

  const render = () => {
    const words = control("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const subset = control("subset").value;
    const order = orders[control("sort").value][1];
    const found = data.queries
      .filter((query) => !subset || query.subset === subset)
      .filter((query) => words.every((word) => query.text.toLowerCase().includes(word)))
      .sort((one, other) => order(one) - order(other));
    list.replaceChildren(...found.slice(0, shown).map(entry));
    root.querySelector(".found").textContent = `${found.length} ${found.length === 1 ? "query" : "queries"}`;
    more.hidden = found.length <= shown;
  };

  const subsets = [...new Set(data.queries.map((query) => query.subset).filter(Boolean))].sort();
  offer("subset", [["", "all"], ...subsets.map((name) => [name, name])], "");
  root.querySelector("#subsets").hidden = subsets.length === 0;
  for (const [side, chosen] of [["left", data.pair[0]], ["right", data.pair[1]]]) {
    offer(side, data.systems.map((name) => [name, name]), chosen);
  }
  offer("sort", Object.entries(orders).map(([name, [label]]) => [name, label]), left() === right() ? "worst" : "change");
  root.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  root.querySelector("form").addEventListener("input", () => {
    shown = PAGE;
    render();
  });
  more.addEventListener("click", () => {
    shown += PAGE;
    render();
  });
  render();
})();
