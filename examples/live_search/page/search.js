// One search at a time: a new one closes the stream of the one before, and the server cancels what that waits for.
// Whatever comes from a site is put into the page as text, never as HTML.

const form = document.querySelector("form");
const input = document.getElementById("question");
const status = document.getElementById("status");
const stop = document.getElementById("stop");
const bar = document.querySelector("#progress span");
const welcome = document.getElementById("welcome");
const area = document.getElementById("search");
const list = document.getElementById("sites");
const groups = document.getElementById("results");

const ENDS = ["found", "failed", "timed out", "not asked", "stopped"];

let stream = null;
let sites = new Map();
let question = "";

const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const copy = (name) => document.getElementById(name).content.firstElementChild.cloneNode(true);

function addSite(site) {
  const row = copy("site");
  row.querySelector(".name").textContent = site.title;
  list.append(row);
  sites.set(site.name, { row, title: site.title });
  setState(row, "waiting", "waiting");
}

function setState(row, state, text) {
  row.dataset.state = state;
  row.querySelector(".text").textContent = text;
}

// What a site has found comes below what others have found before: nothing that is there moves.
function addGroup(title, news) {
  const group = copy("group");
  const heading = group.querySelector("h2");
  heading.textContent = title;
  heading.id = `group-${news.site}`;
  group.setAttribute("aria-labelledby", heading.id);
  group.querySelector(".took").textContent = `${plural(news.results.length, "result")} in ${news.seconds.toFixed(1)} s`;
  group.querySelector("ol").append(...news.results.map(makeResult));
  groups.append(group);
}

function makeResult(result) {
  const item = copy("result");
  const title = item.querySelector(".title");
  const url = webAddress(result.url);
  if (url) {
    const link = document.createElement("a");
    link.href = url.href;
    link.rel = "noreferrer noopener nofollow";
    link.textContent = result.title;
    title.append(link);
    item.querySelector(".address").textContent = url.host + url.pathname;
  } else {
    title.textContent = result.title;
    item.querySelector(".address").remove();
  }
  item.querySelector(".excerpt").textContent = result.text;
  return item;
}

function webAddress(text) {
  try {
    const url = new URL(text);
    return ["https:", "http:"].includes(url.protocol) ? url : null;
  } catch {
    return null;
  }
}

function tell(news) {
  const site = sites.get(news.site);
  if (!site) return;
  const found = news.state === "found";
  setState(site.row, news.state, found ? plural(news.results.length, "result") : news.state);
  if (found && news.results.length) addGroup(site.title, news);
  const why = site.row.querySelector(".why");
  why.textContent = news.why;
  why.hidden = !news.why;
  summarize(false);
}

function summarize(over) {
  const states = [...sites.values()].map((site) => site.row.dataset.state);
  const ended = states.filter((state) => ENDS.includes(state)).length;
  const answered = states.filter((state) => state === "found").length;
  const found = `${plural(groups.querySelectorAll("li").length, "result")} for “${question}”`;
  const rest = over ? `${answered} of ${plural(states.length, "site")} have answered.` : `${states.length - ended} to come …`;
  status.textContent = `${found}; ${rest}`;
  bar.style.width = `${states.length ? (100 * ended) / states.length : 0}%`;
}

function leave(text) {
  if (!stream) return;
  stream.close();
  stream = null;
  stop.hidden = true;
  groups.setAttribute("aria-busy", "false");
  for (const { row } of sites.values()) {
    if (!ENDS.includes(row.dataset.state)) setState(row, "stopped", "stopped");
  }
  summarize(true);
  if (text) status.textContent = `${text} ${status.textContent}`;
}

function search(text) {
  leave();
  question = text;
  welcome.hidden = true;
  area.hidden = false;
  list.replaceChildren();
  groups.replaceChildren();
  groups.setAttribute("aria-busy", "true");
  sites = new Map();
  stop.hidden = false;
  status.textContent = `Searching for “${question}” …`;
  document.title = `${question} · Live search`;
  stream = new EventSource(`/search?q=${encodeURIComponent(question)}`);
  stream.addEventListener("sites", (event) => JSON.parse(event.data).sites.forEach(addSite));
  stream.addEventListener("news", (event) => tell(JSON.parse(event.data)));
  stream.addEventListener("done", () => leave());
  // Without this the browser would begin the search anew, again and again.
  stream.addEventListener("error", () => leave("The connection was lost."));
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = input.value.trim();
  if (!text) return;
  history.pushState(null, "", `/?q=${encodeURIComponent(text)}`);
  search(text);
});

stop.addEventListener("click", () => leave("Stopped."));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") leave("Stopped.");
});
window.addEventListener("pagehide", () => leave());
window.addEventListener("popstate", begin);

function begin() {
  const text = (new URLSearchParams(location.search).get("q") ?? "").trim().slice(0, 200);
  if (!text) {
    if (question) location.reload();
    return;
  }
  input.value = text;
  search(text);
}

begin();
