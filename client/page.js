/**
 * The chat page: what the user does, and what the library (meridian.js) tells.
 *
 * Walk: `controls` reads the fields and begins a `session`; the session holds the library's client and passes on what it tells to
 * `talk`, which keeps who said what (in IndexedDB, so that a reload shows it again) and hands it to `view`.
 */
"use strict";

// ---- Rules: what the contract allows, in words. Pure; "" means fine. --------------------------------------------------------

const name = (value, missing) => {
  if (!value) return missing;
  if (value.length > 128) return `At most 128 characters; these are ${value.length}.`;
  const wrong = [...value].find((sign) => !/[!-z|~]/.test(sign));
  if (wrong === undefined) return "";
  return `${/\s/.test(wrong) ? "A space" : `“${wrong}”`} is not possible: use ASCII letters, digits and signs, except { and }.`;
};
const rules = {
  user: (value) => name(value, "Enter your user name."),
  target: (value) => name(value, "Enter the user to write to."),
  region: (value) => {
    if (!value) return "Enter a region, for example 1.";
    if (value.length > 32) return `At most 32 characters; these are ${value.length}.`;
    return /^[A-Za-z0-9_-]+$/.test(value) ? "" : "Use letters, digits, _ and - only.";
  },
  server: (value) => {
    const url = URL.canParse(value) ? new URL(value) : null;
    return url && /^(ws|http)s?:$/.test(url.protocol) ? "" : "Enter an address such as ws://localhost:3000/ws";
  },
  message: (text, limit) => {
    if (!text.trim()) return "Write a message first.";
    const size = new TextEncoder().encode(text).length;
    return size > limit ? `Too long: ${size} bytes, and ${limit} are possible.` : "";
  },
};

// ---- The library: beside the page, or, since browsers load no modules from disk, at the gateway that the page talks to. ------

const library = {
  module: null,
  tries: 0,
  async load(server) {
    if (library.module) return library.module;
    let address = new URL("meridian.js", location.href);
    if (location.protocol === "file:") {
      address = new URL("/client/meridian.js", server);
      address.protocol = address.protocol.replace("ws", "http");
    }
    if (library.tries++) address.searchParams.set("try", library.tries); // a browser may remember that it failed
    return library.module = await import(address.href);
  },
};

// ---- Talk: who said what, and who is there. ----------------------------------------------------------------------------------

const HISTORY = 1_000;               // messages kept for each user of this browser
const CONTACTS = 100;

const talk = {
  who: null,                         // {user, server}
  storage: null,
  channel: null,                     // to this user's other tabs, which show the same
  messages: new Map(),               // "from id" → message, in their order
  presences: new Map(),
  unread: new Map(),
  peer: "",                          // whose conversation is shown
  lastAt: 0,

  async begin({ user, server }, { IndexedDbStorage }) {
    if (talk.who?.user === user && talk.who.server === server) return;
    const who = talk.who = { user, server };
    talk.prefix = `${new URL(server).host}|${encodeURIComponent(user)}|`;
    for (const map of [talk.messages, talk.presences, talk.unread]) map.clear();
    talk.storage = new IndexedDbStorage("meridian-page");
    talk.channel?.close();
    talk.channel = new BroadcastChannel(`meridian-page ${talk.prefix}`);
    talk.channel.onmessage = ({ data }) => talk.put(data);
    const kept = await talk.storage.entries(talk.prefix).catch(() => []);
    if (who !== talk.who) return;
    const earlier = kept.map(([, message]) => message).filter(({ from, id }) => !talk.messages.has(`${from} ${id}`));
    const all = [...earlier, ...talk.messages.values()].sort((a, b) => a.at - b.at);
    talk.messages = new Map(all.map((message) => [`${message.from} ${message.id}`, message]));
    talk.show(talk.peer);
  },
  other: ({ from, to }) => from === talk.who.user ? to : from,

  /** Adds or changes a message, here and in the other tabs; the promise says that it is kept. */
  async keep(message) {
    talk.put(message);
    talk.channel.postMessage(message);
    const key = (each) => `${talk.prefix}${each.from} ${each.id}`;
    const doomed = [];
    for (const [id, each] of talk.messages) {
      if (talk.messages.size <= HISTORY) break;
      talk.messages.delete(id);
      doomed.push(each);
    }
    const { storage } = talk;
    const changes = [storage.set(key(message), message), ...doomed.map((each) => storage.delete(key(each)))];
    await Promise.all(changes).catch(() => { /* a browser that keeps nothing still shows it */ });
  },
  /** Shows a message, or what became of it. */
  put(message) {
    const key = `${message.from} ${message.id}`;
    const isNew = !talk.messages.has(key);
    talk.messages.set(key, message);
    talk.lastAt = Math.max(talk.lastAt, message.at);
    const other = talk.other(message);
    if (!talk.peer && !message.own) controls.choose(other);
    else if (other === talk.peer) view.message(message);
    else if (isNew && !message.own) talk.unread.set(other, (talk.unread.get(other) ?? 0) + 1);
    if (isNew && !message.own && document.hidden) view.title(view.unread + 1, talk.who.user);
    if (isNew) talk.contacts();
  },
  /** What became of a message of one's own. */
  mark(id, change) {
    const message = talk.messages.get(`${talk.who.user} ${id}`);
    if (!message) return undefined;
    const changed = { ...message, ...change };
    if (change.mark === "sending" || change.mark === "sent") return talk.put(changed); // of this moment: not worth keeping
    return talk.keep(changed);
  },
  now: () => talk.lastAt = Math.max(Date.now(), talk.lastAt + 1),

  show(peer) {
    talk.peer = peer;
    talk.unread.delete(peer);
    const messages = talk.who ? [...talk.messages.values()].filter((message) => talk.other(message) === peer) : [];
    view.conversation(peer, messages);
    talk.contacts();
  },
  contacts() {
    const last = new Map();
    for (const message of talk.messages.values()) {
      const other = talk.other(message);
      last.delete(other);
      last.set(other, message.text);
    }
    const users = [...last.keys()].reverse().slice(0, CONTACTS);
    const contacts = users.map((user) => ({ user, last: last.get(user), unread: talk.unread.get(user), presence: talk.presences.get(user) }));
    view.contacts(contacts, talk.peer, controls.choose);
    view.presence(talk.presences.get(talk.peer));
    const watched = talk.peer && !rules.target(talk.peer) ? [...new Set([talk.peer, ...users])].slice(0, CONTACTS) : users;
    session.watch(watched);
  },
};

// ---- Session: from Connect to Disconnect. ------------------------------------------------------------------------------------

const session = {
  who: null,                         // {user, region, server}; null while nobody wants a connection
  chat: null,
  retry: 0,
  watched: "",
  watching: 0,                       // timer

  async begin(who, attempt = 0) {
    session.who = who;
    session.buttons();
    view.phase("connecting", "Connecting…");
    view.problem("");
    view.title(view.unread, who.user);
    let module;
    try {
      module = await library.load(who.server);
    } catch {
      if (session.who === who) session.again(who, attempt);
      return;
    }
    if (session.who !== who) return;
    await talk.begin(who, module);
    if (session.who !== who) return;
    const chat = new module.Meridian({ url: who.server, userId: who.user, region: who.region, backlog: true });
    session.chat = chat;
    session.watched = "";
    for (const [event, listener] of Object.entries(session.on)) chat.on(event, (detail) => session.chat === chat ? listener(detail) : undefined);
    chat.connect();
    talk.contacts();
  },
  /** Only a page from disk comes here: the gateway that has the library does not answer. */
  again(who, attempt) {
    const pause = Math.random() * Math.min(30_000, 500 * 2 ** attempt);
    view.problem(session.unreachable());
    view.phase("waiting", "Reconnecting", Date.now() + pause);
    session.retry = setTimeout(() => session.begin(who, attempt + 1), pause);
  },
  end(words = "") {
    clearTimeout(session.retry);
    const { chat } = session;
    Object.assign(session, { who: null, chat: null });
    chat?.close();
    view.phase("disconnected", "Disconnected");
    view.problem(words);
    view.title(view.unread);
    talk.presences.clear();
    if (talk.who) talk.contacts();
    session.buttons();
  },
  /** Connect is for a session that is not there yet: also for another one than the present. */
  buttons() {
    const same = session.who && ["user", "region", "server"].every((field) => session.who[field] === value(field));
    view.buttons(!same, session.who !== null);
  },
  unreachable() {
    const { origin, pathname } = new URL(session.who.server);
    return `Could not reach ${origin === "null" ? session.who.server : origin}${pathname} – is the gateway running?`;
  },
  /** Whose presence is shown; not at every letter of a name that is being typed. */
  watch(users) {
    clearTimeout(session.watching);
    if (!session.chat || session.watched === users.join(" ")) return;
    session.watching = setTimeout(() => {
      session.watched = users.join(" ");
      session.chat?.presence(users);
    }, 200);
  },
  waiting: () => view.waiting(session.chat?.pending.length ?? 0),

  on: {
    state({ state, userId, region, retryAt, error }) {
      const phases = { connecting: "Connecting…", waiting: "Reconnecting", connected: `Connected as ${userId ?? session.who.user} in region ${region ?? session.who.region}` };
      if (state === "connected") view.problem("");
      else if (talk.presences.size) {  // nobody tells of changes now
        talk.presences.clear();
        talk.contacts();
      }
      if (state === "waiting" && error.code === "unreachable") view.problem(session.unreachable());
      else if (state === "waiting" && error.code !== "lost") view.problem(sentence(error.message));
      if (state !== "closed") return view.phase(state, phases[state], retryAt);
      const field = { user_invalid: "user", user_mismatch: "user", region_required: "region", region_invalid: "region", region_unknown: "region" }[error?.code];
      session.end(field || !error ? "" : sentence(error.message));
      if (field) {
        view.error(field, sentence(error.message));
        $(field).focus();
      }
    },
    message({ id, from, to, text, data, region, ts }) {
      view.typing(from);
      if (from === talk.who.user && talk.messages.has(`${from} ${id}`)) return undefined; // what one sends to oneself comes back
      const shown = typeof text === "string" ? text : JSON.stringify(data ?? "");
      return talk.keep({ id, from, to, text: shown, region, ts, at: talk.now(), own: from === talk.who.user, mark: "received" });
    },
    queued({ id, to, text = "", at }) {
      session.waiting();
      if (!talk.mark(id, { mark: "sending" })) talk.keep(own({ id, to, text, at })); // an earlier page died before it could keep it
    },
    sent({ id }) { talk.mark(id, { mark: "sent" }); },
    ack({ id, ts }) {
      session.waiting();
      queueMicrotask(session.waiting);
      return talk.mark(id, { mark: "acknowledged", ts });
    },
    typing({ from }) { if (from === talk.peer) view.typing(from, true); },
    presence({ userId, online, lastSeen }) {
      talk.presences.set(userId, { online, lastSeen });
      talk.contacts();
    },
    reset() { view.notice("Some messages from while you were away may be missing."); },
    error({ id, code, message }) {
      queueMicrotask(session.waiting);
      if (code === "user_invalid" && id) view.error("target", sentence(message));
      if (id) return talk.mark(id, { mark: "failed", reason: message });
      if (session.who && code !== "storage_failed") view.problem(sentence(message));
      return undefined;
    },
  },
};

const sentence = (words) => `${words.charAt(0).toUpperCase()}${words.slice(1)}${/[.?!]$/.test(words) ? "" : "."}`;
const own = ({ id, to, text, at }) => ({ id, from: talk.who.user, to, text, at, own: true, mark: "sending" });

// ---- Controls: what the user does. -------------------------------------------------------------------------------------------

const fields = ["user", "target", "region", "server"];
const value = (field) => $(field).value.trim();
/** Of this tab, across a reload; storage may be switched off. */
const tab = {
  get(key) { try { return sessionStorage.getItem(`meridian.${key}`); } catch { return null; } },
  set(key, text) { try { sessionStorage.setItem(`meridian.${key}`, text); } catch { /* as above */ } },
};

const controls = {
  /** All mistakes at once, and the focus on the first. */
  check(names) {
    const wrong = names.filter((field) => !view.error(field, rules[field](value(field))));
    if (wrong.length) $(wrong[0]).focus();
    return !wrong.length;
  },
  connect() {
    if ($("connect").disabled) return; // Enter in a field comes here too
    if (!value("server")) $("server").value = controls.home();
    if (!controls.check(["user", ...(value("target") ? ["target"] : []), "region", "server"])) return;
    controls.remember();
    if (session.who) session.end();
    session.begin({ user: value("user"), region: value("region"), server: value("server") });
    tab.set("wanted", "yes");
    // Connect is disabled now and cannot keep the focus; on a phone the message field would open the keyboard.
    $(matchMedia("(pointer: coarse)").matches ? "disconnect" : "message").focus();
  },
  disconnect() {
    session.end();
    tab.set("wanted", "");
    $("connect").focus();
  },
  choose(user) {
    $("target").value = user;
    controls.changed("target");
  },
  async send() {
    const box = $("message"), { chat } = session;
    if (!chat) return view.error("message", session.who ? "Not connected yet: wait a moment." : "Connect first, then send.");
    if (!controls.check(["target"])) return undefined;
    const text = box.value, to = value("target");
    if (!view.error("message", rules.message(text, chat.maxTextBytes))) return box.focus();
    if (talk.peer !== to) talk.show(to);
    const id = library.module.messageId(), at = talk.now();
    box.value = "";
    controls.fit();
    box.focus();
    const sent = chat.send(to, text, { id });
    if (chat.pending.some((pending) => pending.id === id)) {
      talk.keep(own({ id, to, text, at })); // after the outbox: what is shown as waiting does wait
      session.waiting();
      return undefined;
    }
    return sent.catch(({ message }) => {
      box.value = text;
      controls.fit();
      view.error("message", sentence(message));
    });
  },
  fit() {
    const box = $("message");
    view.error("message", box.value.trim() ? rules.message(box.value, session.chat?.maxTextBytes ?? Infinity) : "");
    if (CSS.supports("field-sizing", "content")) return; // then the style sheet lets the field grow
    box.style.height = "auto";
    box.style.height = `${box.scrollHeight + 2}px`;
  },
  changed(field) {
    // A mistake goes as soon as it is mended, and never comes while one still types.
    if ($(field).getAttribute("aria-invalid") === "true") view.error(field, rules[field](value(field)));
    controls.remember();
    controls.offerOther();
    session.buttons();
    if (field === "target" && talk.peer !== value("target")) talk.show(value("target"));
  },
  home: () => /^https?:$/.test(location.protocol) ? `${location.protocol.replace("http", "ws")}//${location.host}/ws` : "ws://localhost:3000/ws",
  remember() { for (const field of fields) tab.set(field, value(field)); },
  recall() {
    const query = new URLSearchParams(location.search);
    for (const field of fields) {
      // Not the server: a link must not be able to point the page somewhere else.
      $(field).value = (field === "server" ? null : query.get(field)) ?? (tab.get(field) || (field === "server" ? controls.home() : ""));
    }
    talk.peer = value("target");
  },
  /** After a reload: the conversation as it was, and the connection where there was one. */
  async restore() {
    const { type } = performance.getEntriesByType("navigation")[0] ?? {};
    if (rules.user(value("user")) || rules.server(value("server")) || location.protocol === "file:") return;
    if (type !== "navigate" && tab.get("wanted") && !rules.region(value("region"))) return controls.connect();
    const module = await library.load(value("server")).catch(() => null);
    if (module && !session.who) await talk.begin({ user: value("user"), server: value("server") }, module);
  },
  /** The quickest way to try a chat: the same page as the other one, in the other region. */
  offerOther() {
    const [user, target, region] = ["user", "target", "region"].map(value);
    const link = $("other");
    link.hidden = Boolean(rules.user(user) || rules.target(target)) || user === target;
    const query = new URLSearchParams({ user: target, target: user, region: { 1: "2", 2: "1" }[region] ?? region });
    link.href = `${location.pathname}?${query}`;
    link.textContent = `Open a second window as ${target}`;
  },
};

view.edit = (text) => {
  const box = $("message");
  box.value = [box.value, text].filter(Boolean).join("\n");
  box.focus();
  controls.fit();
};
$("setup").addEventListener("submit", (event) => { event.preventDefault(); controls.connect(); });
$("composer").addEventListener("submit", (event) => { event.preventDefault(); controls.send(); });
$("disconnect").addEventListener("click", controls.disconnect);
$("jump").addEventListener("click", () => { view.toEnd(); log.focus(); });
log.addEventListener("scroll", view.scrolled, { passive: true });
new ResizeObserver(() => { if (view.atEnd) view.toEnd(); }).observe(log);
for (const field of fields) $(field).addEventListener("input", () => controls.changed(field));
$("message").addEventListener("input", () => {
  controls.fit();
  if ($("message").value.trim() && !rules.target(value("target"))) session.chat?.typing(value("target"));
});
$("message").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!event.repeat) controls.send();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) view.title(0, session.who?.user);
});

controls.recall();
controls.offerOther();
controls.restore();
