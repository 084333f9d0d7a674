"use strict";
(function () {
  const keys = ["q", "family", "shape", "smooth", "monotone", "learns", "tag", "sort"];
  const control = Object.fromEntries(keys.map(key => [key, document.getElementById(key)]));
  const box = document.getElementById("cards");
  const cards = [...box.children];
  const number = text => text === "" || Number.isNaN(Number(text)) ? Infinity : Number(text);
  const orders = {
    name: () => 0,
    variance: (a, b) => compare(number(a.dataset.variance), number(b.dataset.variance)),
    cost: (a, b) => compare(number(a.dataset.cost), number(b.dataset.cost)),
    year: (a, b) => (Number(b.dataset.year) || 0) - (Number(a.dataset.year) || 0),
  };

  function compare(a, b) {
    return a === b ? 0 : a < b ? -1 : 1;
  }

  function fits(card, wanted) {
    const data = card.dataset;
    return wanted.q.toLowerCase().split(/\s+/).every(word => data.text.includes(word))
      && ["family", "shape", "smooth", "monotone", "learns"].every(key => !wanted[key] || data[key] === wanted[key])
      && (!wanted.tag || data.tags.split("|").includes(wanted.tag));
  }

  function show() {
    const wanted = Object.fromEntries(keys.map(key => [key, control[key].value]));
    const order = orders[wanted.sort];
    let found = 0;
    for (const card of cards) {
      card.hidden = !fits(card, wanted);
      found += !card.hidden;
    }
    cards.sort((a, b) => order(a, b) || compare(a.dataset.name, b.dataset.name));
    box.append(...cards);
    document.getElementById("found").textContent = found + " of " + cards.length;
    document.getElementById("none").hidden = found > 0;
    document.getElementById("clear").hidden = found === cards.length;
  }

  function read() {
    if (!location.hash.includes("=")) return;  // the anchor of one card
    const given = new URLSearchParams(location.hash.slice(1));
    for (const key of keys) {
      const value = given.get(key) || (key === "sort" ? "name" : "");
      control[key].value = value;
      if (control[key].value !== value) control[key].selectedIndex = 0;
    }
  }

  function keep() {
    const given = new URLSearchParams();
    for (const key of keys) {
      const value = control[key].value;
      if (value && !(key === "sort" && value === "name")) given.set(key, value);
    }
    const text = given.toString();
    history.replaceState(null, "", text ? "#" + text : location.pathname + location.search);
  }

  for (const key of keys) {
    control[key].addEventListener("input", () => { show(); keep(); });
  }
  document.getElementById("clear").addEventListener("click", () => {
    for (const key of keys) if (key !== "sort") control[key].value = "";
    show();
    keep();
    control.q.focus();
  });
  window.addEventListener("hashchange", () => { read(); show(); });
  document.getElementById("controls").hidden = false;
  read();
  show();
})();
