"use strict";
// What the page does beyond links and forms. The server draws everything, charts and values; here it is only put in its
// place: what has changed is replaced, a cursor reads all charts at one instant, and a part of them is chosen to zoom.

const root = document.documentElement;
const one = (selector, from = document) => from.querySelector(selector);
const all = (selector, from = document) => [...from.querySelectorAll(selector)];
const parameters = () => new URL(location.href).searchParams;

// -- requests

async function ask(url) {
  let answer;
  try {
    answer = await fetch(url, { headers: { Accept: "text/html" }, cache: "no-store" });
  } catch {
    answer = Response.error();
  }
  document.body.classList.toggle("stale", [0, 401, 403].includes(answer.status) || answer.status >= 500);
  return answer;
}

const parsed = async (answer) => new DOMParser().parseFromString(await answer.text(), "text/html");

// Show another address in place: another search, another time. What has the focus outside of <main> keeps it.
let latest = 0;
async function go(url, { push = true, typing = false } = {}) {
  const number = ++latest;
  const answer = await ask(url);
  if (number !== latest) return;
  const search = one("input[type=search]");
  search?.toggleAttribute("aria-invalid", answer.status === 400);
  if (answer.status !== 200) {
    if (!typing) location.assign(url);
    return;
  }
  const fresh = await parsed(answer);
  if (number !== latest) return;
  if (push) history.pushState(null, "", url);
  else history.replaceState(null, "", url);
  stopReading();
  for (const selector of ["main", "[data-live=rail]"]) {
    const [shown, next] = [one(selector), one(selector, fresh)];
    if (shown && next && shown.innerHTML !== next.innerHTML) shown.innerHTML = next.innerHTML;
  }
  document.title = fresh.title;
  document.body.dataset.end = fresh.body.dataset.end;
  prepare();
}

addEventListener("popstate", () => go(location.href, { push: false }));

// -- updates: the server draws the page again when an interval has ended. Of what it sends, only the elements that differ
// are replaced, from inside: they keep focus and scroll position. What contains a selection waits.

const keyed = (from) => new Map(all("[data-live]", from).map((each) => [each.dataset.live, each]));
const names = (page) => all(".card", page).map((card) => card.dataset.live).join("\n");

const isSelected = (element) => {
  const selection = getSelection();
  return !selection.isCollapsed && selection.containsNode(element, true);
};

function show(fresh) {
  const old = keyed(document);
  for (const [key, element] of keyed(fresh)) {
    const shown = old.get(key);
    if (!shown || !shown.isConnected) continue;
    if (shown.classList.contains("page") && names(shown) === names(element)) continue; // card by card
    if (shown.innerHTML === element.innerHTML || isSelected(shown)) continue;
    const focused = shown !== document.activeElement && shown.contains(document.activeElement);
    const link = focused && document.activeElement.getAttribute("href");
    const top = shown.scrollTop;
    shown.innerHTML = element.innerHTML;
    shown.scrollTop = top;
    if (link) all("a", shown).find((each) => each.getAttribute("href") === link)?.focus({ preventScroll: true });
  }
}

function inView(page) {
  if (!page.firstElementChild) return true;
  const top = page.firstElementChild.getBoundingClientRect().top;
  return top < innerHeight && page.lastElementChild.getBoundingClientRect().bottom > 0;
}

// The addresses of what is in view: that of the page itself, or of its parts, of which more come with scrolling.
function addresses() {
  const pages = all(".page");
  const shown = pages.filter(inView);
  return (shown.length ? shown : pages.slice(0, 1).concat(pages.length ? [] : [null])).map((page) => {
    const url = new URL(location.href);
    if (page) url.searchParams.set("page", page.dataset.page);
    return url;
  });
}

async function update() {
  if (document.hidden) return;
  const [number, since] = [latest, document.body.dataset.end];
  let changed = false;
  for (const url of addresses()) {
    if (since > 0) url.searchParams.set("since", since);
    const answer = await ask(url);
    if (answer.status !== 200) continue;
    const fresh = await parsed(answer);
    if (number !== latest) return;
    show(fresh);
    document.body.dataset.end = fresh.body.dataset.end;
    changed = true;
  }
  if (changed) {
    told.clear();
    if (root.classList.contains("reading")) read(cursor);
  }
}

setInterval(update, Math.min(Math.max(Number(document.body.dataset.interval), 1), 60) * 1000);
document.addEventListener("visibilitychange", update);

// -- more cards, as they come into view

const seen = new IntersectionObserver(
  async (entries) => {
    const link = entries.find((entry) => entry.isIntersecting)?.target;
    if (!link) return;
    seen.unobserve(link);
    const [number, answer] = [latest, await ask(link.href)];
    if (answer.status !== 200) return;
    const fresh = await parsed(answer);
    if (number !== latest || !link.isConnected) return;
    one(".grid").append(...all(".page", fresh));
    one("nav.pages").replaceChildren(...all("nav.pages > :not([rel=prev])", fresh));
    prepare();
  },
  { rootMargin: "800px" },
);

// -- search: as one types

let typed;
document.addEventListener("input", (event) => {
  if (event.target.type !== "search" || !one(".grid")) return;
  clearTimeout(typed);
  typed = setTimeout(() => search(event.target.value), 150);
});

document.addEventListener("submit", (event) => {
  if (event.target.getAttribute("role") !== "search" || !one(".grid")) return;
  event.preventDefault();
  clearTimeout(typed);
  search(one("input[type=search]").value);
});

function search(text) {
  const url = new URL(location.href);
  for (const name of ["query", "match", "page"]) url.searchParams.delete(name);
  if (text.trim()) url.searchParams.set("query", text.trim());
  go(url, { push: false, typing: true });
}

// -- what was looked at recently

function remember() {
  const list = one("#recent");
  if (!list) return;
  let found = [];
  try {
    const key = `metricslib recent ${new URL(list.dataset.root, location.href).pathname}`;
    found = JSON.parse(localStorage.getItem(key) ?? "[]");
    if (list.dataset.name) {
      found = [list.dataset.name, ...found.filter((name) => name !== list.dataset.name)].slice(0, 6);
      localStorage.setItem(key, JSON.stringify(found));
    }
  } catch {
    return; // no storage, no list
  }
  found = found.filter((name) => name !== list.dataset.name);
  list.hidden = !found.length;
  const items = found.map((name) => {
    const item = document.createElement("li");
    const link = item.appendChild(document.createElement("a"));
    link.href = `${list.dataset.root}series/${encodeURIComponent(name)}`;
    link.appendChild(document.createElement("b")).textContent = name;
    return item;
  });
  one("ul", list).replaceChildren(...items);
}

// -- the cursor: one instant, in all charts. The server has the values as texts.

const told = new Map();
let cursor = { share: 1 };

function values(url) {
  url.searchParams.set("values", "1");
  if (!told.has(url.href)) {
    told.set(url.href, ask(url).then((answer) => (answer.status === 200 ? answer.json() : null)));
  }
  return told.get(url.href);
}

const nearest = (ends, time) => ends.reduce((best, end, at) => (Math.abs(end - time) < Math.abs(ends[best] - time) ? at : best), 0);

// Read at a share of the width, or so many steps from where the cursor is.
async function read({ share, step = 0 }) {
  cursor = { share };
  if (!step) root.style.setProperty("--at", `${share * 100}%`);
  for (const url of addresses()) {
    const found = await values(url);
    if (!found?.ends?.length || cursor.share !== share) return;
    const { start, end, ends, times } = found;
    const before = nearest(ends, start + share * (end - start));
    const at = Math.min(Math.max(before + step, 0), ends.length - 1);
    if (step) {
      step = 0;
      share = (ends[at] - start) / (end - start);
      cursor = { share };
      root.style.setProperty("--at", `${share * 100}%`);
    }
    root.classList.add("reading");
    let text = `${times[at]} UTC`;
    for (const [key, readings] of Object.entries(found.values)) {
      const shown = one(`.card[data-live="${CSS.escape(key)}"] .v`);
      const [number, unit] = readings[at];
      if (shown) Object.assign(shown.dataset, { number, unit });
      if (!shown || shown.closest(".card") === document.activeElement) text += ` · ${number} ${unit}`;
    }
    one(".instant").textContent = text;
  }
}

function stopReading() {
  cursor = { share: 1 };
  root.classList.remove("reading");
  const shown = one(".instant");
  if (shown) shown.textContent = "";
}

const plotAt = (event) => event.target.closest?.(".plot:not(.apart)");

function shareIn(plot, event) {
  const box = plot.getBoundingClientRect();
  return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
}

let frame;
document.addEventListener("pointermove", (event) => {
  const plot = drag?.plot ?? plotAt(event);
  if (!plot) {
    if (event.pointerType === "mouse" && root.classList.contains("reading")) stopReading();
    return;
  }
  const share = shareIn(plot, event);
  cancelAnimationFrame(frame);
  frame = requestAnimationFrame(() => {
    if (drag) choose(drag.share, share);
    read({ share });
  });
});

// -- zoom: a part of a chart is dragged over, or chosen with keys. The address has the range.

let drag;
let dragged = false;

function choose(from, to) {
  root.classList.add("choosing");
  root.style.setProperty("--from", `${Math.min(from, to) * 100}%`);
  root.style.setProperty("--width", `${Math.abs(to - from) * 100}%`);
}

document.addEventListener("pointerdown", (event) => {
  dragged = false;
  const plot = event.button === 0 && event.pointerType === "mouse" && plotAt(event);
  if (plot) drag = { plot, share: shareIn(plot, event) };
});
document.addEventListener("dragstart", (event) => drag && event.preventDefault()); // of a link
document.addEventListener("pointercancel", () => (drag = undefined));
document.addEventListener("pointerup", (event) => {
  if (!drag) return;
  const [from, to] = [drag.share, shareIn(drag.plot, event)].sort((one, other) => one - other);
  drag = undefined;
  root.classList.remove("choosing");
  dragged = to - from > 0.02;
  if (dragged) zoom(from, to);
});
document.addEventListener("click", (event) => dragged && event.preventDefault(), true);

async function zoom(from, to) {
  const found = await values(addresses()[0]);
  if (!found?.ends) return;
  const span = found.end - found.start;
  const [start, end] = [from, to].map((share) => Math.round(found.start + share * span));
  if (end - start < 2) return;
  const url = new URL(location.href);
  url.searchParams.set("from", start);
  url.searchParams.set("until", end);
  url.searchParams.delete("page");
  go(url);
}

function zoomOut() {
  const url = new URL(location.href);
  for (const name of ["from", "until"]) url.searchParams.delete(name);
  go(url);
}

// -- keys

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("dialog")) return;
  if (event.target.closest("input, textarea, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const at = root.classList.contains("reading") ? cursor.share : 0.5;
  const keys = {
    "/": () => one("input[type=search]")?.select(),
    "?": () => one("#keys").showModal(),
    ArrowLeft: () => one(".plot") && read({ ...cursor, step: event.shiftKey ? -10 : -1 }),
    ArrowRight: () => one(".plot") && read({ ...cursor, step: event.shiftKey ? 10 : 1 }),
    "+": () => zoom(Math.max(at - 0.25, 0), Math.min(at + 0.25, 1)),
    "-": () => zoom(-0.5, 1.5),
    Escape: () => (root.classList.contains("reading") ? stopReading() : parameters().has("from") && zoomOut()),
  };
  if (!Object.hasOwn(keys, event.key)) return;
  if (event.key !== "Escape") event.preventDefault();
  keys[event.key]();
});

document.addEventListener("click", (event) => {
  if (event.target.id !== "full") return;
  if (document.fullscreenElement) document.exitFullscreen();
  else root.requestFullscreen();
});

function prepare() {
  one("#full")?.toggleAttribute("hidden", !document.fullscreenEnabled);
  told.clear();
  all("nav.pages a[rel=next]").forEach((link) => seen.observe(link));
  remember();
}

prepare();
