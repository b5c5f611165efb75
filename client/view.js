/**
 * What the chat page shows: the only code that touches the document.
 *
 * A classic script, as page.js is: browsers load no modules from disk. Whatever comes from the wire reaches the document as text, never as markup.
 */
"use strict";

const $ = (id) => document.getElementById(id);
const log = $("log");
const LOG = 1_000;                   // elements; older ones stay in the history

const element = (tag, className, text) => {
  const made = document.createElement(tag);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};
/** Today's times without the day. */
const moment = (date) => {
  const today = date.toDateString() === new Date().toDateString();
  return date.toLocaleString([], { ...(today ? {} : { dateStyle: "medium" }), timeStyle: "short" });
};

const view = {
  unread: 0,
  atEnd: true,                       // the reader is at the end of the log, and wants to stay there
  size: "",                          // of the log, when that was last known
  typists: new Map(),                // user → timer
  countdown: 0,
  edit: () => {},                    // what "Edit" at a message that was refused does with its text

  phase(phase, words, due) {
    $("status").dataset.phase = phase;
    if ($("phase").textContent !== words) $("phase").textContent = words;
    clearTimeout(view.countdown);
    $("countdown").textContent = "";
    if (due) view.count(due);
  },
  count(due) {
    const left = due - Date.now();
    $("countdown").textContent = ` in ${Math.max(1, Math.ceil(left / 1000))} s…`;
    if (left > 0) view.countdown = setTimeout(view.count, left % 1000 || 1000, due);
  },
  buttons(connect, disconnect) {
    $("connect").disabled = !connect;
    $("disconnect").disabled = !disconnect;
  },
  error(field, words) {
    const text = $(`${field}-error`);
    if (text.textContent !== words) text.textContent = words;
    $(field).setAttribute("aria-invalid", words ? "true" : "false");
    if (words && field === "server") $("server-details").open = true;
    return !words;
  },
  problem(words) {
    if ($("problem").textContent !== words) $("problem").textContent = words;
  },

  // The conversation.

  /** Shows another conversation, which is not news to a screen reader. */
  conversation(peer, messages) {
    log.setAttribute("aria-live", "off");
    log.replaceChildren();
    view.typing();
    for (const message of messages.slice(-LOG)) log.append(view.made(message));
    view.toEnd();
    $("peer").hidden = !peer;
    $("peer").querySelector("strong").textContent = peer;
    requestAnimationFrame(() => log.setAttribute("aria-live", "polite"));
  },
  append(node, always) {
    log.append(node);
    while (log.childElementCount > LOG) log.firstElementChild.remove();
    if (view.atEnd || always) view.toEnd();
    else $("jump").hidden = false;
  },
  measure: () => `${log.scrollHeight} ${log.clientHeight}`,
  /** A scroll that a change of size brought about does not say that the reader went elsewhere. */
  scrolled() {
    if (view.atEnd && view.size !== view.measure()) return view.toEnd();
    view.atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 48;
    if (!view.atEnd) return;
    view.size = view.measure();
    $("jump").hidden = true;
  },
  toEnd() {
    log.scrollTop = log.scrollHeight;
    Object.assign(view, { atEnd: true, size: view.measure() });
    $("jump").hidden = true;
  },
  notice(words) { view.append(element("p", "notice", words)); },

  /** Adds a message, or changes the one that is there. */
  message(message) {
    const there = view.find(message);
    if (there) {
      view.time(there, message.ts ?? message.at);
      view.mark(there, message);
    } else view.append(view.made(message), message.mark === "sending");
  },
  find: ({ id, from }) => [...log.children].findLast((node) => node.dataset.id === id && node.dataset.from === from),

  /** Own messages carry a mark; those of others the region they came from. */
  made(message) {
    const { id, from, to, text, region, own } = message;
    const node = element("div", own ? "message own" : "message");
    Object.assign(node.dataset, { id, from });
    const meta = element("div", "meta");
    meta.append(element("span", "who", own ? `to ${to}` : from));
    if (!own && region) meta.append(element("span", "from-region", `region ${region}`));
    meta.append(element("time", ""));
    if (own) {
      meta.append(element("span", "mark"));
      meta.lastChild.setAttribute("role", "img");
    }
    const body = element("div", "text", text);
    body.dir = "auto";
    node.append(meta, body);
    view.time(node, message.ts ?? message.at);
    view.mark(node, message);
    return node;
  },
  time(node, when) {
    const read = new Date(when ?? NaN);
    const date = Number.isNaN(read.getTime()) ? new Date() : read;
    const time = node.querySelector("time");
    time.dateTime = date.toISOString();
    time.title = date.toLocaleString();
    time.textContent = moment(date);
  },
  mark(node, { mark, reason, text }) {
    if (node.dataset.state === mark) return;
    node.dataset.state = mark;
    const words = { sending: "Waiting to be sent", sent: "Sent", acknowledged: "Acknowledged", failed: "Not sent" }[mark];
    const icon = node.querySelector(".mark");
    if (icon && words) {
      icon.setAttribute("aria-label", words);
      icon.title = words;
    }
    if (mark !== "failed") return;
    const again = element("button", "", "Edit");
    again.type = "button";
    again.addEventListener("click", () => { again.remove(); view.edit(text); });
    node.append(element("p", "error", `Not sent: ${reason}`), again);
    if (view.atEnd) view.toEnd();
  },
  waiting(count) { $("unacknowledged").textContent = count ? `${count} not yet acknowledged` : ""; },

  /** `from` writes, or does not any more; without a name nobody does. */
  typing(from, active = false) {
    for (const name of from === undefined ? [...view.typists.keys()] : [from]) {
      clearTimeout(view.typists.get(name));
      view.typists.delete(name);
    }
    if (active) view.typists.set(from, setTimeout(() => view.typing(from), 5_000));
    const names = [...view.typists.keys()];
    $("typing").textContent = names.length ? `${names.join(" and ")} ${names.length > 1 ? "are" : "is"} typing…` : "";
  },
  title(unread, who) {
    view.unread = unread;
    document.title = `${unread ? `(${unread}) ` : ""}${who ? `${who} – ` : ""}Meridian chat`;
  },

  // Who else is there. `presence` is {online, lastSeen}, or absent while it is not known.

  contacts(contacts, current, choose) {
    const focused = document.activeElement?.closest("#contacts button")?.dataset.user;
    document.querySelector("nav").hidden = !contacts.length;
    $("contacts").replaceChildren(...contacts.map(({ user, last, unread, presence }) => {
      const button = element("button", "");
      button.type = "button";
      button.dataset.user = user;
      if (user === current) button.setAttribute("aria-current", "true");
      button.append(element("span", "dot"), element("span", "name", user));
      button.firstChild.dataset.online = presence?.online ?? "unknown";
      button.firstChild.setAttribute("role", "img");
      button.firstChild.setAttribute("aria-label", presence ? view.presenceWords(presence) : "presence unknown");
      if (unread) {
        button.append(element("span", "badge", unread));
        button.lastChild.setAttribute("aria-label", `${unread} unread`);
      }
      if (last) button.append(element("span", "preview", last));
      button.addEventListener("click", () => choose(user));
      const item = element("li", "");
      item.append(button);
      return item;
    }));
    if (focused) $("contacts").querySelector(`[data-user="${CSS.escape(focused)}"]`)?.focus();
  },
  presenceWords({ online, lastSeen }) {
    if (online) return "online";
    const seen = new Date(lastSeen ?? NaN);
    return Number.isNaN(seen.getTime()) ? "offline" : `last seen ${moment(seen)}`;
  },
  presence(presence) {
    $("peer").querySelector(".dot").dataset.online = presence?.online ?? "unknown";
    const words = presence ? view.presenceWords(presence) : "";
    if ($("presence").textContent !== words) $("presence").textContent = words;
  },
};
