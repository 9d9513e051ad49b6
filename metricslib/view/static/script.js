"use strict";
// What the page does beyond links and forms: the search has a key, and what is shown is kept up to date.

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select")) return;
  const search = document.querySelector("input[type=search]");
  if (search) {
    event.preventDefault();
    search.focus();
    search.select();
  }
});

// The server draws the page again when an interval has ended. Of what it sends, only the elements that differ are
// replaced, from inside: they keep focus and scroll position. What contains a selection waits.
const keyed = (root) => new Map([...root.querySelectorAll("[data-live]")].map((each) => [each.dataset.live, each]));

const isSelected = (element) => {
  const selection = getSelection();
  return !selection.isCollapsed && selection.containsNode(element, true);
};

function show(fresh) {
  const old = keyed(document);
  const next = keyed(fresh);
  const cards = (root) => [...root.querySelectorAll(".card")].map((card) => card.dataset.live).join("\n");
  const sameCards = cards(document) === cards(fresh);
  for (const [key, element] of next) {
    const shown = old.get(key);
    if (!shown || !shown.isConnected || (key === "grid" && sameCards)) continue;
    if (shown.innerHTML === element.innerHTML || isSelected(shown)) continue;
    const focused = shown !== document.activeElement && shown.contains(document.activeElement);
    const link = focused && document.activeElement.getAttribute("href");
    const top = shown.scrollTop;
    shown.innerHTML = element.innerHTML;
    shown.scrollTop = top;
    if (link) {
      const again = [...shown.querySelectorAll("a")].find((each) => each.getAttribute("href") === link);
      if (again) again.focus({ preventScroll: true });
    }
  }
  document.body.dataset.end = fresh.body.dataset.end;
}

async function update() {
  if (document.hidden) return;
  const url = new URL(location.href);
  if (document.body.dataset.end > 0) url.searchParams.set("since", document.body.dataset.end);
  try {
    const answer = await fetch(url, { headers: { Accept: "text/html" }, cache: "no-store" });
    if (answer.status === 200) show(new DOMParser().parseFromString(await answer.text(), "text/html"));
    document.body.classList.toggle("stale", !answer.ok);
  } catch {
    document.body.classList.add("stale");
  }
}

setInterval(update, Math.min(Math.max(Number(document.body.dataset.interval), 1), 60) * 1000);
document.addEventListener("visibilitychange", update);
