// The status, asked for every two seconds while somebody looks, and what an operator may do.
// Everything that is shown goes through textContent: nothing of it is ever read as markup.
"use strict";

const EVERY_MS = 2000;
const at = (id) => document.getElementById(id);
let token = sessionStorage.getItem("meridian-token") ?? "";
let timer = 0;

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function ask(path, method = "GET") {
  const headers = { "x-meridian-action": "1" };
  if (token) headers.authorization = `Bearer ${token}`;
  return fetch(path, { method, headers, cache: "no-store" });
}

function complain(text) {
  at("problem").textContent = text;
  at("problem").hidden = !text;
}

async function look() {
  clearTimeout(timer);
  try {
    const response = await ask("status");
    const body = await response.json();
    if (response.ok) {
      at("login").hidden = true;
      at("main").hidden = false;
      show(body);
    } else {
      at("main").hidden = true;
      at("state").textContent = "Not shown";
      at("login").hidden = response.status !== 401;
      complain(response.status === 401 && !token ? "" : body.error.message);
      if (response.status === 401) return;
    }
  } catch {
    at("state").textContent = "The gateway does not answer; asking again …";
    at("state").className = "bad";
  }
  if (!document.hidden) timer = setTimeout(look, EVERY_MS);
}

function duration(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const found = [];
  let rest = Math.floor(seconds);
  for (const [size, unit] of parts) {
    if (rest >= size) found.push(`${Math.floor(rest / size)} ${unit}`);
    rest %= size;
  }
  return found.slice(0, 2).join(" ") || "0 s";
}

function show(status) {
  at("state").textContent =
    status.state === "draining" ? "Draining" : status.ready ? "Serving" : `Not ready: ${status.notReady.join("; ")}`;
  at("state").className = status.ready ? "good" : "warn";
  about(status);
  regions(status.regions);
  section("processes", status.sections?.processes, processes);
  section("certificates", status.sections?.certificates, certificates);
  more(status);
}

function about(status) {
  const configuration = status.configuration;
  const rows = [
    ["Version", status.version],
    ["Up for", duration(status.uptime)],
    ["In flight", status.inFlight],
    ["Chat", `${status.hub.sockets} sockets, ${status.hub.users} users`],
    ["Bus", status.bus.state === "up" ? `${status.bus.kind}, up` : `${status.bus.kind}, down: ${status.bus.why}`],
    ["Configuration", `generation ${configuration.generation}, since ${moment(configuration.since)}`],
  ];
  if (configuration.lastReload) rows.push(["Last reload", reloaded(configuration.lastReload)]);
  if (configuration.restart.length > 0) rows.push(["Waits for a restart", configuration.restart.join(", ")]);
  if (configuration.warnings?.length > 0) rows.push(["Warnings", configuration.warnings.map(problem).join("; "), "warn"]);
  if (configuration.failure) {
    const why = configuration.failure.problems.map(problem);
    rows.push(["Refused", `${moment(configuration.failure.at)}: ${why.join("; ")}`, "bad"]);
  }
  const cells = rows.flatMap(([name, value, kind]) => [element("dt", name), element("dd", String(value), kind)]);
  at("about").replaceChildren(...cells);
}

function problem(of) {
  return [of.source, of.key, of.message].filter(Boolean).join(": ");
}

function reloaded(report) {
  const changed = report.changed.length > 0 ? `; changed: ${report.changed.join(", ")}` : "";
  return `${report.result} at ${moment(report.at)} by ${report.by}, in ${report.tookMs} ms${changed}`;
}

// Without the fraction of a second.
function moment(text) {
  return text.replace(/\.\d+Z$/, "Z");
}

function regions(all) {
  // The focus survives, since what is there already is kept where nothing changed.
  const text = JSON.stringify(all);
  if (at("regions").dataset.shown === text) return;
  const focused = document.activeElement?.dataset?.key;
  at("regions").replaceChildren(...all.map(region));
  at("regions").dataset.shown = text;
  if (focused) document.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

function region(of) {
  const card = element("article", undefined, "region card");
  card.append(element("h3", `Region ${of.region}`));
  card.append(element("p", of.facts.join(" · ")));
  const list = element("ul", undefined, "backends");
  for (const backend of of.backends) list.append(row(of.region, backend));
  card.append(list);
  return card;
}

function row(name, backend) {
  const item = element("li");
  item.append(element("span", backend.address, "name"));
  item.append(element("span", backend.state, backend.eligible ? "good" : backend.state === "draining" ? "warn" : "bad"));
  item.append(element("span", backend.facts.join(" · "), "facts"));
  const verb = backend.draining ? "Resume" : "Drain";
  const button = element("button", verb);
  button.type = "button";
  button.dataset.key = `${name} ${backend.address}`;
  button.setAttribute("aria-label", `${verb} ${backend.address}`);
  button.addEventListener("click", () => act(name, backend.address, verb));
  item.append(button);
  return item;
}

// A list that is there only while it has something to say.
function section(id, all, show) {
  at(id).hidden = !(all?.length > 0);
  at(id).querySelector("div").replaceChildren(...show(all ?? []));
}

function line(name, [words, kind], facts) {
  const item = element("li");
  item.append(element("span", name, "name"), element("span", words, kind));
  item.append(element("span", facts.filter(Boolean).join(" · "), "facts"));
  return item;
}

function processes(all) {
  return all.map((of) => {
    const card = element("article", undefined, "card");
    card.append(element("h3", `${of.process} of region ${of.region}`));
    const list = element("ul", undefined, "rows");
    list.append(...of.instances.map(instance));
    card.append(list);
    return card;
  });
}

const DOING = {
  ready: ["ready", "good"],
  starting: ["starting", "warn"],
  draining: ["draining", "warn"],
  backoff: ["waits to be started again", "bad"],
  crash_loop: ["in a crash loop", "bad"],
  stopped: ["stopped by an operator", "warn"],
};

function instance(of) {
  const facts = [`since ${moment(of.since)}`];
  if (of.pid !== null) facts.push(`pid ${of.pid}`, `port ${of.port}`, `up for ${duration(of.uptime)}`);
  facts.push(`${of.restarts} restarts`);
  if (of.pid !== null) facts.push(`${(of.memory / 1048576).toFixed(1)} MiB`);
  if (of.lastExit) facts.push(`last end: ${of.lastExit}`);
  if (of.notReplaced) facts.push(`its replacement could not be started: ${of.notReplaced}`);
  if (of.draining.length > 0) facts.push(`still finishing: pid ${of.draining.join(", ")}`);
  return line(`instance ${of.instance}`, DOING[of.state] ?? [of.state, "warn"], facts);
}

// When a certificate is soon to end; as in the log.
const SOON_DAYS = 14;

function certificates(all) {
  const card = element("article", undefined, "card");
  const list = element("ul", undefined, "rows");
  for (const of of all) {
    const days = Math.floor((new Date(of.notAfter) - Date.now()) / 86400000);
    const [words, kind] =
      days < 0 ? ["has run out", "bad"] : [`ends in ${days} days`, days < SOON_DAYS ? "warn" : "good"];
    const facts = [`until ${of.notAfter}`, of.hosts.join(", "), `from ${of.source}`];
    if (of.isDefault) facts.push("shown to whoever names no host of the others");
    list.append(line(of.name, [words, kind], facts));
  }
  card.append(list);
  return all.length > 0 ? [card] : [];
}

const SHOWN = ["processes", "certificates"];

function more(status) {
  const made = Object.entries(status.sections ?? {}).flatMap(([name, value]) => {
    if (SHOWN.includes(name)) return [];
    if (value === null || (Array.isArray(value) && value.length === 0)) return [];
    return [element("h2", name), element("pre", JSON.stringify(value, null, 2))];
  });
  at("more").replaceChildren(...made);
}

let answered = Promise.resolve();

// One question at a time: a dialog tells of its end a moment after it, and that word must not be taken for the next
// question's answer.
async function confirmed(question) {
  await answered;
  const dialog = at("confirm");
  at("question").textContent = question;
  dialog.returnValue = "no";
  dialog.showModal();
  answered = new Promise((done) => {
    dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true });
  });
  const answer = await answered;
  at("question").textContent = "";
  return answer;
}

async function act(name, backend, verb) {
  const what =
    verb === "Drain"
      ? `Drain ${backend}? It gets no new requests; what is open is finished, and WebSockets are asked to come back elsewhere.`
      : `Resume ${backend}? It gets requests again.`;
  if (!(await confirmed(what))) return;
  const path = `backends/${encodeURIComponent(name)}/${encodeURIComponent(backend)}/${verb.toLowerCase()}`;
  await send(path);
}

async function send(path) {
  try {
    const response = await ask(path, "POST");
    const body = await response.json();
    if (response.ok) complain("");
    else if (body.problems) complain(`The configuration is not valid:\n${body.problems.map(problem).join("\n")}`);
    else complain(body.error.message);
  } catch {
    complain("The gateway does not answer.");
  }
  await look();
}

at("reload").addEventListener("click", async () => {
  if (await confirmed("Read the configuration again, and apply what changed?")) await send("reload");
});
at("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value;
  sessionStorage.setItem("meridian-token", token);
  look();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) look();
});
look();
