"use strict";
// Shows what the stream says. Text goes into the page as text, never as HTML.

const STREAM = "/dls/page/events";
const KEY_HEADER = "X-Dls-Page-Key";
const STORED = "dls-page-key";
const RETRY_SECONDS = [1, 2, 3, 5];
const $ = (id) => document.getElementById(id);

const STATES = {
  open: "Connected",
  local: "Running",
  lost: "Link lost",
  asleep: "Server asleep",
  closed: "Closed",
  gone: "No contact with dls",
};
const KINDS = {
  point: "Click", scribble: "Scribble", lasso: "Lasso", box: "Box", mask: "Mask", undo: "Undo", predict: "Prediction", image: "Image", reset: "Reset",
};

let shown = null;
let skew = 0; // seconds that the clock of the stream is ahead of this one
let failures = 0;
let stream = null;
const cards = new Map();

// ---- small tools

function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

function make(tag, className, value) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (value !== undefined) node.textContent = value;
  return node;
}

function age(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 172800) return `${Math.floor(whole / 3600)} h`;
  return `${Math.floor(whole / 86400)} days`;
}

const now = () => Date.now() / 1000 + skew;
const ago = (at) => (now() - at < 1.5 ? "just now" : `${age(now() - at)} ago`);
const clock = (at) => new Date((at - skew) * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const seconds = (value) => (typeof value === "number" ? (value < 10 ? `${value.toFixed(2)} s` : `${value.toFixed(0)} s`) : "");
const several = (count, one, more) => `${count} ${count === 1 ? one : more}`;
const product = (values) => values.map((value) => Number(value.toFixed(2))).join(" × ");

function timeNode(at, how) {
  const node = make("time");
  node.dateTime = new Date((at - skew) * 1000).toISOString();
  node.title = clock(at);
  node.dataset.at = at;
  node.dataset.how = how;
  node.textContent = ago(at);
  return node;
}

// ---- the key

function takeKeyFromAddress() {
  const found = /^#key=([\w.~-]+)$/.exec(location.hash);
  if (!found) return false;
  sessionStorage.setItem(STORED, found[1]);
  history.replaceState(null, "", location.pathname);
  return true;
}

function headers() {
  const key = sessionStorage.getItem(STORED);
  return key ? { [KEY_HEADER]: key } : {};
}

function useKey(key) {
  sessionStorage.setItem(STORED, key.trim());
  text($("wrong"), "");
  restart();
}

// Without the credentials that the page's own address may have: fetch takes none there.
const here = (path) => location.origin + path;

// ---- the stream: server-sent events, read with fetch, because EventSource sends no header

function restart() {
  failures = 0;
  if (stream) stream.abort();
  follow();
}

async function follow() {
  const own = (stream = new AbortController());
  try {
    await read(own.signal);
  } catch (error) {
    if (error.name === "AbortError") return;
  }
  if (own !== stream) return;
  if (!shown || shown.link.state !== "closed") lose();
  const wait = RETRY_SECONDS[Math.min(failures, RETRY_SECONDS.length - 1)];
  failures += 1;
  setTimeout(() => { if (own === stream) follow(); }, wait * 1000);
}

async function read(signal) {
  const response = await fetch(here(STREAM), { headers: headers(), signal, cache: "no-store" });
  if (response.status === 403 && sessionStorage.getItem(STORED)) {
    sessionStorage.removeItem(STORED);
    text($("wrong"), "This key is not that of the running dls.");
    return read(signal);
  }
  if (!response.ok) throw new Error(String(response.status));
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return undefined;
    const events = (rest + decoder.decode(value, { stream: true })).split("\n\n");
    rest = events.pop();
    const last = events.filter((event) => event.startsWith("data: ")).pop();
    if (last) {
      failures = 0;
      show(JSON.parse(last.slice(6)));
    }
  }
}

function lose() {
  showState("gone", "The program that serves this page does not answer.");
  showNotice("gone", "No contact with dls", "The program that serves this page has ended, or is busy. The page goes on by itself when it is back.");
}

// ---- what is shown

function show(state) {
  shown = state;
  skew = state.now - Date.now() / 1000;
  showLink(state);
  showServer(state);
  showAddress(state);
  const isPrivate = state.private;
  $("locked").hidden = isPrivate;
  $("requests-card").hidden = $("log-section").hidden = !isPrivate;
  showSessions(isPrivate ? state.sessions : [], isPrivate);
  if (isPrivate) {
    showRequests(state.requests);
    showLog(state.log, state.as_of);
  }
  tick();
}

function showState(name, reason) {
  const label = STATES[name] || name;
  $("pill").dataset.state = name;
  text($("state"), label);
  text($("state-reason"), reason ? `. ${reason}` : "");
  const target = shown ? shown.target : "dls";
  document.title = name === "open" || name === "local" ? `${target} · dls` : `${label} · ${target}`;
}

function showLink(state) {
  const link = state.link;
  showState(link.state, link.reason);
  text($("target"), state.target);
  text($("eyebrow"), link.state === "local" ? "Segmentation server on this computer" : "Segmentation on");
  text($("link-name"), link.state === "local" ? "Server" : "Link");
  const titles = { lost: "The link is lost", asleep: "The server has ended", closed: link.reason || "Closed" };
  const reason = link.state === "closed" ? "This dls connect is over. Start it again to go on; its key will be another one." : link.reason;
  showNotice(link.state, titles[link.state], reason);
  document.body.classList.toggle("stale", link.state !== "open" && link.state !== "local");
}

function showNotice(name, title, reason) {
  const notice = $("notice");
  notice.hidden = !title;
  notice.dataset.state = name;
  text($("notice-title"), title || "");
  text($("notice-reason"), reason || "");
  if (name !== "lost") text($("notice-next"), "");
}

function showServer(state) {
  const engine = state.engine;
  text($("engine"), engine.name || "–");
  const isLoading = engine.state === "loading";
  text($("device"), isLoading ? engine.text || "is being loaded" : engine.state === "failed" ? "could not be loaded" : engine.device ? `on ${engine.device}` : "");
  $("loading").hidden = !isLoading;
  if (isLoading && engine.total) {
    $("loading").max = engine.total;
    $("loading").value = engine.done;
  } else {
    $("loading").removeAttribute("value");
  }
  showGpus(state.gpus);
  if (!state.private) {
    text($("session-count"), "–");
    return;
  }
  const awake = state.sessions.filter((session) => session.awake).length;
  text($("session-count"), state.sessions.length ? `${awake} awake, ${state.sessions.length - awake} asleep` : "None");
}

function showGpus(gpus) {
  const list = $("gpus");
  const nodes = gpus.flatMap((gpu) => {
    const used = `${(gpu.used / 1024).toFixed(1)} of ${(gpu.total / 1024).toFixed(0)} GiB in use`;
    const meter = make("div", "meter");
    meter.append(make("i"));
    meter.firstChild.style.width = `${gpu.total ? (100 * gpu.used) / gpu.total : 0}%`;
    return [make("span", "", gpu.name), make("span", "quiet", used), meter];
  });
  list.replaceChildren(...(nodes.length ? nodes : [make("span", "", "None found")]));
}

function showAddress(state) {
  const address = state.address;
  $("setup").hidden = !address;
  if (!address) return;
  const rows = [["Server", address.server], ["Port", String(address.port)]];
  if (address.viewers) rows.push(["URL", `http://localhost:${address.port}`]);
  if (address.viewers && address.secret) rows.push(["API key", address.secret]);
  const list = $("copies");
  const key = JSON.stringify(rows);
  if (list.dataset.rows === key) return;
  list.dataset.rows = key;
  list.replaceChildren(...rows.map(([name, value]) => copyRow(name, value)));
}

function copyRow(name, value) {
  const row = make("div");
  const field = make("dd");
  const button = make("button", "", "Copy");
  button.type = "button";
  button.setAttribute("aria-label", `Copy ${name}: ${value}`);
  const code = make("code", "", value);
  button.addEventListener("click", () => copy(button, code, name));
  field.append(code, button);
  row.append(make("dt", "", name), field);
  return row;
}

async function copy(button, code, name) {
  let done = true;
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    getSelection().selectAllChildren(code);
    done = document.execCommand("copy");
  }
  text(button, done ? "Copied" : "Selected");
  button.classList.toggle("done", done);
  text($("copied"), done ? `${name} copied` : `${name} selected: copy it with the keyboard`);
  setTimeout(() => { text(button, "Copy"); button.classList.remove("done"); text($("copied"), ""); }, 2500);
}

function showSessions(sessions, isPrivate) {
  $("no-sessions").hidden = !isPrivate || sessions.length > 0;
  const list = $("sessions");
  const ids = new Set(sessions.map((session) => session.id));
  for (const [id, card] of cards) {
    if (!ids.has(id)) { card.node.remove(); card.release(); cards.delete(id); }
  }
  sessions.forEach((session, index) => {
    if (!cards.has(session.id)) cards.set(session.id, new Card(session.id));
    const card = cards.get(session.id);
    if (list.children[index] !== card.node) list.insertBefore(card.node, list.children[index] || null);
    card.show(session);
  });
}

class Card {
  constructor(id) {
    this.node = make("li");
    this.picture = null; // address of the picture that is shown, or on its way
    this.image = make("img");
    this.image.hidden = true;
    this.image.width = 576;
    this.image.height = 192;
    this.missing = make("p", "", "The picture is on its way.");
    this.name = make("strong", "", "Session ");
    this.name.append(make("span", "mono", id));
    this.badge = make("span", "badge right");
    this.facts = make("span", "quiet");
    this.used = make("span", "quiet right");
    const view = make("div", "view");
    view.append(this.image, this.missing);
    const caption = make("figcaption");
    caption.append(this.name, this.badge, this.facts, this.used);
    const figure = make("figure");
    figure.append(view, caption);
    this.node.append(figure);
  }

  show(session) {
    text(this.badge, session.awake ? "Awake" : "Asleep");
    this.badge.dataset.awake = String(session.awake);
    const facts = [session.model, `${product(session.size)} voxels`, several(session.prompts, "prompt", "prompts")];
    text(this.facts, facts.join(" · "));
    this.facts.title = `Spacing ${product(session.spacing)} mm`;
    if (this.used.firstChild?.dataset.at !== String(session.used)) this.used.replaceChildren(timeNode(session.used, "ago"));
    this.image.alt = `Axial, coronal and sagittal slice of session ${session.id}, ${session.prompts ? "with its mask" : "without a mask"}`;
    if (!session.picture) this.clear();
    else if (session.picture !== this.picture) this.load(session.picture);
  }

  // After a reset of another viewer's session there is nothing to show: the mask of before is not its mask.
  clear() {
    this.picture = null;
    this.image.hidden = true;
    this.missing.hidden = false;
    text(this.missing, "No mask yet. Of this viewer’s image only the engine sees anything.");
  }

  async load(address) {
    this.picture = address;
    try {
      const response = await fetch(here(address), { headers: headers(), cache: "no-store" });
      if (response.status !== 200) throw new Error(String(response.status)); // 204: it is not there now
      const source = URL.createObjectURL(await response.blob());
      if (this.picture !== address) { URL.revokeObjectURL(source); return; }
      this.release();
      this.image.src = source;
      this.image.hidden = false;
      this.missing.hidden = true;
    } catch {
      if (this.picture === address) this.picture = null; // the next event tries again
    }
  }

  release() {
    if (this.image.src) URL.revokeObjectURL(this.image.src);
  }
}

function showRequests(requests) {
  $("no-requests").hidden = requests.length > 0;
  $("requests-table").hidden = requests.length === 0;
  const body = $("requests");
  const key = JSON.stringify(requests);
  if (body.dataset.rows === key) return;
  body.dataset.rows = key;
  body.replaceChildren(...requests.slice(0, 12).map(requestRow));
}

function requestRow(request) {
  const row = make("tr");
  const what = make("td");
  if (request.foreground !== null && request.foreground !== undefined) {
    const sign = make("span", "sign", request.foreground ? "+" : "−");
    sign.setAttribute("aria-hidden", "true");
    what.append(sign, KINDS[request.kind] || request.kind, make("span", "hidden", request.foreground ? ", adds" : ", removes"));
  } else {
    what.append(make("span", "sign"), KINDS[request.kind] || request.kind);
  }
  const when = make("td");
  when.append(timeNode(request.at, "ago"));
  const isFine = request.status === 200;
  const total = make("td", isFine ? "number" : "number failed", isFine ? seconds(request.seconds) : "refused");
  if (!isFine) total.title = `Status ${request.status}: the viewer or the server's log says why`;
  row.append(when, what, make("td", "mono", request.session), make("td", "number", seconds(request.engine)), total);
  return row;
}

function showLog(lines, asOf) {
  text($("log-title"), asOf ? `Log of the server, as of ${clock(asOf)}` : "Log of the server");
  const log = $("log");
  const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 24;
  text(log, lines.length ? lines.join("\n") : "Nothing yet.");
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

// ---- what changes with time alone

function tick() {
  for (const node of document.querySelectorAll("time[data-at]")) text(node, ago(Number(node.dataset.at)));
  if (!shown) return;
  const link = shown.link;
  const since = age(now() - link.since);
  text($("link-since"), link.state === "open" || link.state === "local" ? `Up for ${since}` : `Down for ${since}`);
  if (link.state === "lost" && $("pill").dataset.state === "lost") {
    const left = link.next_try === null ? 0 : Math.ceil(link.next_try - now());
    const next = left > 0 ? `Next try in ${left} s.` : "Trying now.";
    const waiting = link.waiting ? ` ${several(link.waiting, "request waits", "requests wait")}, to be answered when the link is back.` : "";
    text($("notice-next"), `Since ${clock(link.since)}, for ${since}. ${next}${waiting}`);
  }
}

takeKeyFromAddress();
addEventListener("hashchange", () => { if (takeKeyFromAddress()) restart(); });
$("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey($("key").value);
});
setInterval(tick, 1000);
follow();
