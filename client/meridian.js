/**
 * Meridian's client: chat over one WebSocket that comes back by itself, in browsers and in Node (18 or newer).
 *
 * Walk: `connect` loads position and outbox from the storage and opens a socket; the welcome says where this user stands; what comes
 * is handed to the listeners, and then the position is stored. `send` stores the message, then sends it, until it is acknowledged
 * or refused for good. Whatever ends the socket ends in `#lost`, which decides whether and when there is another one.
 *
 * Invariants: a message to one peer is sent only when the one before it is settled, so retries keep the order; a repeat goes out
 * under its id; everything that grows has a bound; nothing of an earlier socket is heard (`#socket` is the only one that counts).
 *
 * Sections: what goes wrong | pure parts | storages | outbox | inbox | client.
 */

// ---- What goes wrong -----------------------------------------------------------------------------------------------------

/** `code` is the server's (`text_too_long`, `user_invalid`, …), or `closed`, `outbox_full`, `unreachable`, `refused`, … of this library. */
export class MeridianError extends Error {
  constructor(code, message, details = {}) {
    super(message);
    this.name = "MeridianError";
    this.code = code;
    Object.assign(this, details); // id, status, closeCode, retryable, cause
  }
}

// ---- Pure parts ----------------------------------------------------------------------------------------------------------

const DEFAULTS = {
  url: "/ws",
  backlog: false,                  // a user without a stored position gets only what comes from now on
  window: 16,                      // messages without an answer at once, far below the server's burst
  outboxMessages: 500,
  outboxBytes: 4 * 1024 * 1024,
  seenMessages: 2_000,             // (from, id) remembered: twice what an inbox retains by default
  bufferedMessages: 1_000,         // waiting for a `for await` that is slower than the sender
  handshakeTimeoutMs: 10_000,      // from the first packet to the welcome
  pongTimeoutMs: 10_000,
  ackTimeoutMs: 20_000,            // a live connection that answers a message no sooner is replaced
  backoffBaseMs: 500,
  backoffCapMs: 30_000,
};
const STEADY_MS = 5_000;           // a connection that lived this long proves the server well
const TYPING_MS = 3_000;           // between two typing notices to one peer
const OVERLOADED_MS = 1_000;       // least pause after 1013
const AWAY_MAX_MS = 600_000;       // what a draining hub may ask for
const TIMER_MAX = 0x7fffffff;      // a longer timeout would fire at once

/** Closed for good: policy (1008), and another connection took this one's place (4001). */
const FINAL_CLOSES = { 1008: "policy", 4001: "replaced" };
const SYSTEM_CLOCK = {
  now: () => Date.now(),
  random: () => Math.random(),
  setTimeout: (action, ms) => setTimeout(action, ms),
  clearTimeout: (timer) => clearTimeout(timer),
};

/** The pause before attempt number `attempt` (from 0), in milliseconds: full jitter, so that those who were cut together come apart. */
export const backoff = (attempt, base, cap, random = Math.random) => random() * Math.min(cap, base * 2 ** Math.min(attempt, 30));

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const isUser = (text) => typeof text === "string" && /^[!-z|~]{1,128}$/.test(text);
const isId = (text) => typeof text === "string" && /^[!-~]{1,64}$/.test(text);
const bytes = (text) => new TextEncoder().encode(text).length;

/** Half a surrogate pair is no character: the server refuses it, and here it becomes U+FFFD, as everywhere on the web. */
const wellFormed = (text) => text.replace(/\p{Surrogate}/gu, "\ufffd");

/** An id for a message: 128 random bits. A page that came over plain HTTP from another machine has no `randomUUID`, Node 18 no `crypto`. */
export function messageId() {
  if (globalThis.crypto?.randomUUID) return crypto.randomUUID();
  const words = globalThis.crypto ? crypto.getRandomValues(new Uint32Array(4)) : Array.from({ length: 4 }, () => Math.random() * 2 ** 32);
  return Array.from(words, (word) => Math.trunc(word).toString(16).padStart(8, "0")).join("");
}

/** The frame of a message, or the reason why the server would not take it. */
function compose(to, text, { data, id = messageId() }, maxTextBytes) {
  const refuse = (code, message) => { throw new MeridianError(code, message, { id }); };
  if (!isId(id)) refuse("id_invalid", "id is 1 to 64 visible ASCII characters");
  if (!isUser(to)) refuse("user_invalid", "to is 1 to 128 visible ASCII characters, without { and }");
  if (text !== undefined && text !== null && typeof text !== "string") refuse("bad_frame", "text is a string");
  const frame = { type: "message", to };
  if (text) frame.text = wellFormed(text);
  if (data !== undefined) frame.data = data;
  if (frame.text === undefined && frame.data === undefined) refuse("text_empty", "a message needs text or data");
  frame.id = id;
  const size = bytes(frame.text ?? "") + (data === undefined ? 0 : bytes(JSON.stringify(data) ?? ""));
  if (size > maxTextBytes) refuse("text_too_long", `text and data are ${size} bytes, and ${maxTextBytes} are possible`);
  return { frame, size };
}

/** Timers by name: setting one again replaces it, and all end together. */
class Timers {
  #running = new Map();
  constructor(clock) { this.clock = clock; }
  has(name) { return this.#running.has(name); }
  set(name, ms, action) {
    this.stop(name);
    this.#running.set(name, this.clock.setTimeout(() => { this.#running.delete(name); action(); }, Math.min(ms, TIMER_MAX)));
  }
  stop(...names) {
    for (const name of names) {
      this.clock.clearTimeout(this.#running.get(name));
      this.#running.delete(name);
    }
  }
  stopAll() { this.stop(...this.#running.keys()); }
}

// ---- Storages: get, set, delete, keys; all may be asynchronous -----------------------------------------------------------

/** Keeps what it is given for the life of the process. */
export class MemoryStorage {
  #values = new Map();
  get(key) { return this.#values.get(key); }
  set(key, value) { this.#values.set(key, structuredClone(value)); }
  delete(key) { this.#values.delete(key); }
  keys() { return [...this.#values.keys()]; }
}

/** Keeps what it is given in the browser, for all pages of the origin. */
export class IndexedDbStorage {
  #database;
  constructor(name = "meridian") { this.name = name; }
  async get(key) { return (await this.#run("readonly", (store) => [store.get(key)]))[0]; }
  async set(key, value) { await this.#run("readwrite", (store) => [store.put(value, key)]); }
  async delete(key) { await this.#run("readwrite", (store) => [store.delete(key)]); }
  async keys() { return (await this.#run("readonly", (store) => [store.getAllKeys()]))[0]; }
  /** All `[key, value]` whose key begins with `prefix`, in the order of the keys. */
  async entries(prefix) {
    const range = IDBKeyRange.bound(prefix, `${prefix}\uffff`);
    // In one transaction: between two of them another tab could write, and values would stand beside the keys of others.
    const [keys, values] = await this.#run("readonly", (store) => [store.getAllKeys(range), store.getAll(range)]);
    return keys.map((key, index) => [key, values[index]]);
  }

  async #run(mode, ask) {
    this.#database ??= this.#open();
    const database = await this.#database;
    return new Promise((resolve, reject) => {
      const transaction = database.transaction("values", mode);
      const requests = ask(transaction.objectStore("values"));
      // A write counts when its transaction is through.
      transaction.oncomplete = () => resolve(requests.map(({ result }) => result));
      transaction.onabort = transaction.onerror = ({ target }) => reject(transaction.error ?? target.error);
    });
  }

  #open() {
    return new Promise((resolve, reject) => {
      const request = indexedDB.open(this.name, 1);
      request.onupgradeneeded = () => request.result.createObjectStore("values");
      const forget = () => { this.#database = undefined; }; // the next use opens it anew
      request.onerror = () => { forget(); reject(request.error); };
      request.onsuccess = () => {
        request.result.onclose = forget;
        request.result.onversionchange = () => { request.result.close(); forget(); };
        resolve(request.result);
      };
    });
  }
}

/** `[key, value]` of all keys with this prefix. */
async function entriesOf(storage, prefix) {
  if (storage.entries) return storage.entries(prefix);
  const keys = [...await storage.keys()].filter((key) => key.startsWith(prefix)).sort();
  return Promise.all(keys.map(async (key) => [key, await storage.get(key)]));
}

// ---- Outbox: what is sent and not yet settled ----------------------------------------------------------------------------

/**
 * Of several tabs with one storage each sends its own messages. A tab holds a lock for its life; whoever gets the lock of another one
 * knows that it is gone, and takes its messages over. Without locks (plain HTTP, Node) all that is stored is taken over at once: then two
 * tabs may send the same message, which its id makes harmless.
 */
class Outbox {
  /** id → {frame, size, order, state: storing | queued | sent, sentAt, promise, resolve, reject}, in the order of writing. */
  entries = new Map();
  #size = 0;
  #order = 0;
  #me = messageId();
  #leaving = new Set();            // settled, and still in the storage
  #awaited = new Set();            // tabs whose end is waited for
  #open;                           // an AbortController while this tab may take over
  #writes = Promise.resolve();     // of the storage, one after the other

  constructor(storage, prefix, options, on) {
    Object.assign(this, { storage, prefix, options, on, locks: globalThis.navigator?.locks });
  }

  /** Begins to own what is stored; ends with `release`. */
  async open() {
    if (this.#open) return this.adopt(); // the server ended it and nobody closed it: the lock is still held
    const open = this.#open = new AbortController();
    if (this.locks) {
      await new Promise((held) => {
        const life = new Promise((end) => open.signal.addEventListener("abort", end));
        this.locks.request(this.#lock(this.#me), () => { held(); return life; }).catch(held);
      });
    }
    await this.adopt();
  }

  release() {
    this.#open?.abort();
    this.#open = undefined;
    this.#awaited.clear();
    const left = [...this.entries.values()];
    this.entries.clear();
    this.#size = 0;
    return left;
  }

  /** Looks for messages of tabs that are gone. */
  async adopt() {
    const open = this.#open;
    if (!open) return;             // closed meanwhile
    await this.#write(async () => {
      const owners = new Set((await entriesOf(this.storage, this.prefix)).map(([, value]) => value.owner));
      for (const owner of owners) {
        if (open !== this.#open || this.#awaited.has(owner)) continue;
        if (!this.locks || owner === this.#me) await this.#take(owner, open);
        else await this.locks.request(this.#lock(owner), { ifAvailable: true }, (lock) => lock ? this.#take(owner, open) : this.#await(owner, open));
      }
    });
  }

  #lock(owner) { return `${this.prefix}${owner}`; }

  #await(owner, open) {
    this.#awaited.add(owner);
    const taken = () => this.#write(() => this.#take(owner, open)).finally(() => this.#awaited.delete(owner));
    this.locks.request(this.#lock(owner), { signal: open.signal }, taken).catch(() => { /* closed meanwhile */ });
  }

  async #take(owner, open) {
    for (const [key, value] of await entriesOf(this.storage, this.prefix)) {
      if (open !== this.#open) return;
      const id = value.frame.id;
      if (value.owner !== owner || this.entries.has(id) || this.#leaving.has(id)) continue;
      if (owner !== this.#me) await this.storage.set(key, { ...value, owner: this.#me });
      this.#insert(value.frame, value.size, value.order, "queued");
    }
    this.entries = new Map([...this.entries].sort(([, a], [, b]) => a.order - b.order));
    this.on.queued([...this.entries.values()].filter((entry) => entry.state === "queued"));
  }

  #insert(frame, size, order, state) {
    const entry = { frame, size, order, state, sentAt: 0 };
    entry.promise = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }));
    entry.promise.catch(() => { /* told by an event too: a promise that nobody looks at must not end a process */ });
    this.entries.set(frame.id, entry);
    this.#size += size;
    this.#order = Math.max(this.#order, order);
    return entry;
  }

  add(frame, size, now) {
    const { outboxMessages, outboxBytes } = this.options;
    if (this.entries.size >= outboxMessages || this.#size + size > outboxBytes) {
      const message = `${this.entries.size} messages wait already (${this.#size} bytes): wait until some are acknowledged`;
      throw new MeridianError("outbox_full", message, { id: frame.id, retryable: true });
    }
    const entry = this.#insert(frame, size, Math.max(now, this.#order + 1), "storing");
    const value = { frame, size, order: entry.order, owner: this.#me };
    this.#write(() => this.storage.set(this.#key(entry), value)).then(() => {
      if (this.entries.get(frame.id) !== entry) return;
      entry.state = "queued";
      this.on.queued([entry]);
    });
    return entry;
  }

  /** Forgets a settled message, here at once, and in the storage when all that is told of it has been heard. */
  settle(entry, told) {
    this.entries.delete(entry.frame.id);
    this.#size -= entry.size;
    this.#leaving.add(entry.frame.id);
    Promise.resolve(told)
      .then(() => this.#write(() => this.storage.delete(this.#key(entry))))
      .then(() => this.#leaving.delete(entry.frame.id));
  }

  /** What may go out now, oldest first: to each peer one at a time, `window` together. */
  *due(window) {
    const busy = new Set();
    let flying = 0;
    for (const { state } of this.entries.values()) flying += state === "sent" ? 1 : 0;
    for (const entry of this.entries.values()) {
      if (flying >= window) return;
      const first = !busy.has(entry.frame.to);
      busy.add(entry.frame.to);
      if (!first || entry.state !== "queued") continue;
      flying += 1;
      yield entry;
    }
  }

  sent() { return [...this.entries.values()].filter((entry) => entry.state === "sent"); }

  #key(entry) { return `${this.prefix}${String(entry.order).padStart(16, "0")}-${entry.frame.id}`; }

  /** One storage operation after the other; one that fails is told and costs the copy, not the message. */
  #write(operation) {
    this.#writes = this.#writes.then(operation).catch((cause) => this.on.failed(cause));
    return this.#writes;
  }
}

// ---- Inbox: where this user stands, and what was handed on ---------------------------------------------------------------

class Inbox {
  position = null;                 // {epoch, seq}: the last that was handed to the listeners
  #seen = new Set();               // "from id" of what was handed to them; a user has no space
  #through = { position: null, seen: new Set() }; // the same of what they are through with, which is what is stored
  #writer = messageId();
  #writing = false;
  #again = false;
  #chain = Promise.resolve();

  constructor(storage, key, limit, failed) {
    Object.assign(this, { storage, key, limit, failed, locks: globalThis.navigator?.locks });
  }

  async load() {
    const stored = await this.storage.get(this.key);
    if (this.position || !isObject(stored)) return;
    for (const seen of [this.#seen, this.#through.seen]) this.#remember(seen, stored.seen ?? []);
    if (stored.epoch && Number.isSafeInteger(stored.seq)) this.position = { epoch: stored.epoch, seq: stored.seq };
  }

  /** Takes note of a message; false for a repeat. */
  isNew(from, id) {
    const key = `${from} ${id}`;
    if (this.#seen.has(key)) return false;
    this.#remember(this.#seen, [key]);
    return true;
  }

  #remember(seen, keys) {
    for (const key of keys) seen.add(key);
    for (const key of seen) {
      if (seen.size <= this.limit) break;
      seen.delete(key);
    }
  }

  /** Moves to a position, which is stored once `told` (what the listeners do about the message `key`) is through. */
  move(epoch, seq, told, key) {
    const position = this.position = { epoch, seq };
    this.#chain = this.#chain.then(() => told).then(() => {
      this.#through.position = position;
      if (key) this.#remember(this.#through.seen, [key]);
      this.#store();
    });
  }

  /** All of it in one value, so that position and memory never part; several changes during a write make one more. */
  async #store() {
    this.#again = true;
    if (this.#writing) return;
    this.#writing = true;
    while (this.#again) {
      this.#again = false;
      const merge = async () => this.storage.set(this.key, this.#merged(await this.storage.get(this.key)));
      try {                        // where there are locks no other tab writes between the two
        await (this.locks ? this.locks.request(this.key, merge) : merge());
      } catch (cause) { this.failed(cause); }
    }
    this.#writing = false;
  }

  /** Another tab of the same user may be ahead. */
  #merged(stored) {
    const { epoch, seq } = this.#through.position;
    const mine = { epoch, seq, seen: [...this.#through.seen], writer: this.#writer };
    if (!isObject(stored) || stored.writer === this.#writer) return mine;
    // Also of another epoch, in which the other tab was given what this one may be given again.
    const seen = new Set([...stored.seen ?? [], ...mine.seen]);
    const ahead = stored.epoch === epoch ? Math.max(seq, stored.seq) : seq;
    return { ...mine, seq: ahead, seen: [...seen].slice(-this.limit) };
  }
}

// ---- Client --------------------------------------------------------------------------------------------------------------

/** One user's connection. Events: message, ack, sent, queued, typing, presence, state, reset, error (see meridian.d.ts). */
export class Meridian {
  #options; #clock; #timers; #outbox; #inbox;
  #listeners = new Map();
  #state = { state: "idle" };
  #run = 0;                        // counts connect and close; what belongs to an earlier run stops at its next step
  #socket = null;
  #welcomed = false;               // on the present socket
  #everWelcomed = false;
  #welcomedAt = 0;
  #heardAt = 0;
  #attempt = 0;
  #holds = 0;                      // refusals in a row that ask for patience
  #alone = false;                  // one message at a time, to find out which one is too large
  #comeBackAt = 0;                 // set by a draining hub, which spreads its clients over time
  #pingMs = 30_000;
  #maxTextBytes = Infinity;
  #typed = new Map();              // peer → when a typing notice last went out
  #watched = [];
  #storageFailed = false;

  constructor(options) {
    const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
    this.#options = { WebSocket: globalThis.WebSocket, clock: SYSTEM_CLOCK, ...DEFAULTS, ...given };
    const { userId, clock } = this.#options;
    if (!isUser(userId)) throw new MeridianError("user_invalid", "userId is 1 to 128 visible ASCII characters, without { and }");
    if (!this.#options.WebSocket) throw new MeridianError("unsupported", "no WebSocket here: hand a class in as WebSocket");
    const url = this.#address();
    this.#clock = clock;
    this.#timers = new Timers(clock);
    const storage = this.#options.storage ?? (globalThis.indexedDB ? new IndexedDbStorage() : new MemoryStorage());
    const prefix = `${this.#options.namespace ?? url.host + url.pathname}|${encodeURIComponent(userId)}|`;
    const failed = (cause) => this.#storageFault(cause);
    this.#outbox = new Outbox(storage, `${prefix}outbox|`, this.#options, { queued: (entries) => this.#queued(entries), failed });
    this.#inbox = new Inbox(storage, `${prefix}position`, this.#options.seenMessages, failed);
  }

  get userId() { return this.#options.userId; }
  get state() { return this.#state.state; }
  /** `{epoch, seq}` of the last message that was handed on; null before the first welcome of this user. */
  get position() { return this.#inbox.position && { ...this.#inbox.position }; }
  /** The longest text (with data) that the server takes, in bytes; no bound before the first welcome. */
  get maxTextBytes() { return this.#maxTextBytes; }
  /** What is not settled yet, in the order of writing. */
  get pending() { return [...this.#outbox.entries.values()].map(describe); }

  /** Calls `listener` with each event of this kind; returns how to stop that. */
  on(event, listener) {
    if (!this.#listeners.has(event)) this.#listeners.set(event, new Set());
    this.#listeners.get(event).add(listener);
    return () => this.off(event, listener);
  }
  off(event, listener) { this.#listeners.get(event)?.delete(listener); }

  /** Begins to be connected, and stays so until `close`. */
  connect() {
    if (this.#state.state !== "idle" && this.#state.state !== "closed") return;
    const run = ++this.#run;
    this.#attempt = 0;
    this.#comeBackAt = 0;
    this.#tell({ state: "connecting" });
    this.#observe(true);
    this.#begin(run);
  }

  async #begin(run) {
    await this.#inbox.load().catch((cause) => this.#storageFault(cause));
    if (run !== this.#run) return;
    await this.#outbox.open();
    if (run === this.#run) this.#open();
  }

  /**
   * Sends a message; settles when the server has it, also after reconnections. The same `id` again is the same message. Rejects with a
   * [`MeridianError`] when it cannot be sent for good, or when `close` comes first: then it waits in the storage for the next `connect`.
   */
  send(to, text, options = {}) {
    const waiting = options.id !== undefined && this.#outbox.entries.get(options.id);
    if (waiting) return waiting.promise;
    try {
      const { frame, size } = compose(to, text, options, this.#maxTextBytes);
      return this.#outbox.add(frame, size, this.#clock.now()).promise;
    } catch (error) { return Promise.reject(error); }
  }

  /** Says that this user writes to `to`; at most every three seconds, and only where there is a connection. */
  typing(to) {
    const now = this.#clock.now();
    if (!this.#welcomed || Math.abs(now - (this.#typed.get(to) ?? -Infinity)) < TYPING_MS) return false;
    if (this.#typed.size > 100) this.#typed.clear();
    this.#typed.set(to, now);
    return this.#write({ type: "typing", to });
  }

  /** Asks who of these is here, and to be told when that changes; replaces the list before, and outlives the connection. */
  presence(users) {
    const wanted = [...new Set(users)];
    const wrong = wanted.find((user) => !isUser(user));
    if (wrong !== undefined) throw new MeridianError("user_invalid", `no user can be called ${wrong}`);
    const before = this.#watched.length;
    this.#watched = wanted;
    if (before || this.#watched.length) this.#write({ type: "presence", users: this.#watched });
  }

  /** Ends the connection. What is not acknowledged is rejected here, and stays in the storage. */
  close() {
    this.#run += 1;
    this.#detach()?.close(1000);
    this.#timers.stopAll();
    this.#observe(false);
    const message = "closed before the acknowledgement; the message waits in the storage for the next connect";
    for (const entry of this.#outbox.release()) entry.reject(new MeridianError("closed", message, { id: entry.frame.id, retryable: true }));
    if (this.#state.state !== "closed" && this.#state.state !== "idle") this.#tell({ state: "closed" });
  }

  /** Messages as they come; the position moves on when the next one is asked for. Ends with `close`. */
  async *[Symbol.asyncIterator]() {
    const queue = [];
    let wake = () => {}, over = this.state === "closed", failure, done;
    const stops = [
      this.on("message", (message) => {
        if (queue.length >= this.#options.bufferedMessages) {
          failure ??= new MeridianError("overflow", `${queue.length} messages wait for a reader that is too slow`);
          return wake();
        }
        return new Promise((resolve) => { queue.push({ message, done: resolve }); wake(); });
      }),
      this.on("state", ({ state }) => { over = state === "closed"; wake(); }),
    ];
    try {
      for (;;) {
        while (queue.length) {
          const next = queue.shift();
          done = next.done;
          yield next.message;
          done();
        }
        if (failure) throw failure;
        if (over) return;
        await new Promise((resolve) => { wake = resolve; });
      }
    } finally {                    // a reader that leaves must not hold the position back
      stops.forEach((stop) => stop());
      done?.();
      for (const left of queue) left.done();
    }
  }

  // Events: a listener that throws costs nobody else the event; the answer is there when all of them are through.

  #emit(event, detail) {
    const answers = [];
    for (const listener of this.#listeners.get(event) ?? []) {
      try {
        answers.push(listener(detail));
      } catch (cause) { this.#listenerFault(event, cause); }
    }
    return Promise.all(answers.map((answer) => Promise.resolve(answer).catch((cause) => this.#listenerFault(event, cause))));
  }
  #listenerFault(event, cause) {
    if (event === "error") console.error(cause);
    else this.#emit("error", new MeridianError("listener_failed", `a listener of ${event} failed: ${cause?.message ?? cause}`, { cause }));
  }
  #storageFault(cause) {
    if (this.#storageFailed) return;
    this.#storageFailed = true;    // once: it would come with each message
    const message = `the storage failed, so what waits will not survive a reload: ${cause?.message ?? cause}`;
    this.#emit("error", new MeridianError("storage_failed", message, { cause }));
  }
  #tell(state) {
    this.#state = state;
    this.#emit("state", state);
  }

  // The connection.

  #address() {
    const url = new URL(this.#options.url, globalThis.location?.href);
    if (!/^(ws|http)s?:$/.test(url.protocol)) throw new MeridianError("url_invalid", `no address of a chat server: ${url.href}`);
    url.protocol = /^(wss|https):$/.test(url.protocol) ? "wss:" : "ws:";
    url.hash = "";
    return url;
  }

  async #target() {
    const { userId, region, token } = this.#options;
    const url = this.#address();
    url.searchParams.set("userId", userId);
    if (region !== undefined) url.searchParams.set("region", region);
    if (token !== undefined) url.searchParams.set("token", typeof token === "function" ? await token() : token);
    // Of no epoch at all everything is later: so the whole inbox follows.
    const from = this.#inbox.position ?? (this.#options.backlog ? { epoch: "", seq: 0 } : null);
    if (from) {
      url.searchParams.set("since", from.seq);
      url.searchParams.set("epoch", from.epoch);
    }
    return url;
  }

  async #open() {
    const run = this.#run;
    this.#tell({ state: "connecting" });
    let socket, url;
    try {
      url = await this.#target();
      if (run !== this.#run || this.#socket) return;
      socket = new this.#options.WebSocket(url.href);
    } catch (cause) {              // the token function failed, or the browser forbids the address (ws: from an https page)
      if (run !== this.#run) return;
      if (url) return this.#end(new MeridianError("refused", `the browser does not allow a connection to ${url.origin}`, { cause }));
      return this.#retry(0, new MeridianError("unauthorized", `no token: ${cause?.message ?? cause}`, { cause, retryable: true }));
    }
    this.#socket = socket;
    let opened = false;
    this.#timers.set("handshake", this.#options.handshakeTimeoutMs, () => this.#lost(socket, 0, "no welcome in time", opened, url));
    socket.onopen = () => { opened = true; };
    socket.onmessage = ({ data }) => { if (socket === this.#socket) this.#receive(data); };
    socket.onclose = ({ code, reason }) => this.#lost(socket, code, reason, opened, url);
    socket.onerror = () => { /* a close follows */ };
  }

  /** Lets go of the present socket; what was under way on it is not any more. */
  #detach() {
    const socket = this.#socket;
    if (this.#welcomed && this.#clock.now() - this.#welcomedAt >= STEADY_MS) this.#attempt = 0;
    this.#socket = null;
    this.#welcomed = false;
    this.#timers.stop("handshake", "ping", "pong", "ack", "hold", "leave", "presence");
    return socket;
  }

  /** The connection is gone, or was never there. Also called for one that only looks open, whose close may take minutes. */
  async #lost(socket, code, reason, opened, url) {
    if (socket !== this.#socket) return;
    const run = this.#run;
    this.#detach();
    socket.close();
    this.#unsend(code === 1009);
    if (FINAL_CLOSES[code]) {
      const message = code === 4001 ? "another connection of this user took the place of this one" : `the server closed the connection: ${reason || code}`;
      return this.#end(new MeridianError(FINAL_CLOSES[code], message, { closeCode: code }));
    }
    if (opened) return this.#retry(code === 1013 ? OVERLOADED_MS : 0, new MeridianError("lost", `the connection was lost (${reason || code || "no answer"})`, { closeCode: code, retryable: true }));
    const error = await this.#explain(url);
    if (run !== this.#run || this.#socket) return;
    if (error.retryable) this.#retry(0, error);
    else this.#end(error);
  }

  /** A browser hides why a handshake was refused; the same address, asked over HTTP, often says it. */
  async #explain(url) {
    const address = `${url.protocol}//${url.host}${url.pathname}`;
    const asked = new URL(url);
    asked.protocol = url.protocol === "wss:" ? "https:" : "http:";
    try {
      const answer = await fetch(asked, { cache: "no-store", signal: AbortSignal.timeout(5_000) });
      const { code, message } = (await answer.json()).error;
      const status = answer.status;
      if (code === "upgrade_required") {
        return new MeridianError("refused", `${address} answers, but refuses the connection, or something on the way does not let WebSockets through`, { retryable: true });
      }
      // A token that is fetched for each attempt may be right the next time.
      const final = [400, 403].includes(status) || code === "region_unknown" || (status === 401 && typeof this.#options.token !== "function");
      return new MeridianError(String(code), String(message), { status, retryable: !final });
    } catch {                      // nobody there, no JSON, or an answer that this page may not read
      const there = await fetch(asked, { mode: "no-cors", cache: "no-store", signal: AbortSignal.timeout(5_000) }).then(() => true, () => false);
      return there
        ? new MeridianError("refused", `${address} answers, but refuses the connection`, { retryable: true })
        : new MeridianError("unreachable", `could not reach ${address}`, { retryable: true });
    }
  }

  #retry(least, error) {
    const { backoffBaseMs, backoffCapMs } = this.#options;
    const now = this.#clock.now();
    const pause = least + backoff(this.#attempt, backoffBaseMs, backoffCapMs, this.#clock.random);
    const retryInMs = this.#comeBackAt > now ? Math.min(this.#comeBackAt - now, AWAY_MAX_MS) : pause;
    this.#attempt += 1;
    this.#timers.set("retry", retryInMs, () => this.#open());
    this.#tell({ state: "waiting", retryInMs, retryAt: now + retryInMs, attempt: this.#attempt, error });
  }

  /** The server wants no further attempt. What waits stays in the outbox; `connect` begins anew. */
  #end(error) {
    this.#run += 1;
    this.#timers.stopAll();
    this.#observe(false);
    this.#tell({ state: "closed", error });
    this.#emit("error", error);
  }

  // What the machine knows of the network: no reason to wait on when it is back, and a reason to look when it changes.

  #hurry = () => {
    if (this.#state.state === "waiting" && this.#comeBackAt <= this.#clock.now()) {
      this.#timers.stop("retry");
      this.#open();
    } else this.#probe();
  };
  #visible = () => { if (!globalThis.document.hidden) this.#hurry(); };
  #offline = () => this.#probe();
  #observe(on) {
    const change = on ? "addEventListener" : "removeEventListener";
    globalThis[change]?.("online", this.#hurry);
    globalThis[change]?.("offline", this.#offline);
    globalThis.document?.[change]("visibilitychange", this.#visible);
  }

  /** Nothing was heard for a while, or should be doubted: whatever answers the ping proves the connection. */
  #probe() {
    if (!this.#welcomed || this.#timers.has("pong") || !this.#write({ type: "ping" })) return;
    const socket = this.#socket;
    this.#timers.set("pong", this.#options.pongTimeoutMs, () => this.#lost(socket, 0, "no pong in time", true));
  }
  /** One timer, set anew only when it fires: what comes in between just moves the clock hand. */
  #watch() {
    const quiet = this.#clock.now() - this.#heardAt;
    const wasSetBack = quiet < 0;  // the clock, by a person or the network: it says nothing now
    if (wasSetBack || quiet >= this.#pingMs) this.#probe();
    this.#timers.set("ping", wasSetBack ? this.#pingMs : Math.max(this.#pingMs - quiet, 100), () => this.#watch());
  }

  #write(frame) {
    if (!this.#welcomed || this.#socket.readyState !== 1) return false;
    this.#socket.send(JSON.stringify(frame));
    return true;
  }

  // What comes.

  #receive(data) {
    let frame = null;
    try { frame = JSON.parse(data); } catch { /* not for us */ }
    if (!isObject(frame) || !Object.hasOwn(this.#on, frame.type)) return;
    if (!this.#welcomed && frame.type !== "welcome") return;
    this.#heardAt = this.#clock.now();
    this.#timers.stop("pong");
    this.#on[frame.type](frame);
  }

  #on = {
    welcome: (frame) => {
      const before = this.position, socket = this.#socket;
      this.#timers.stop("handshake");
      this.#welcomed = true;
      this.#welcomedAt = this.#clock.now();
      this.#comeBackAt = 0;
      if (frame.maxTextBytes > 0) this.#maxTextBytes = frame.maxTextBytes;
      if (frame.pingIntervalMs > 0) this.#pingMs = frame.pingIntervalMs;
      this.#place(frame);
      this.#tell({ state: "connected", userId: frame.userId, region: frame.region, resumed: frame.resumed === true });
      if (before && frame.resumed !== true && frame.epoch) this.#emit("reset", { ...this.position, before });
      if (socket !== this.#socket) return; // a listener has closed it
      if (this.#watched.length) this.#write({ type: "presence", users: this.#watched });
      this.#watch();
      this.#pump();
      if (this.#everWelcomed) this.#outbox.adopt();
      this.#everWelcomed = true;
    },
    message: (frame) => {
      const { id, from, seq } = frame;
      if (typeof id !== "string" || typeof from !== "string") return;
      const { type: _, ...message } = frame;
      const told = this.#inbox.isNew(from, id) ? this.#emit("message", message) : undefined;
      const { position } = this.#inbox;
      // A hub that keeps nothing counts nothing: `seq` is 0 there.
      if (position && Number.isSafeInteger(seq) && seq > position.seq) this.#inbox.move(position.epoch, seq, told, `${from} ${id}`);
    },
    ack: (frame) => {
      const entry = this.#outbox.entries.get(frame.id);
      if (!entry) return;
      const ack = { id: frame.id, to: entry.frame.to, seq: frame.seq, ts: frame.ts, duplicate: frame.duplicate === true };
      this.#holds = 0;
      this.#settle(entry, this.#emit("ack", ack));
      entry.resolve(ack);
    },
    typing: ({ from }) => { if (isUser(from)) this.#emit("typing", { from }); },
    presence: ({ userId, online, lastSeen }) => {
      if (isUser(userId)) this.#emit("presence", { userId, online: online === true, lastSeen: lastSeen ?? null });
    },
    reset: (frame) => {
      const before = this.position;
      this.#place(frame);
      // After a welcome without a position (the bus was away) the same position says that all is well.
      if (before && before.epoch === frame.epoch && before.seq === frame.seq) return;
      this.#emit("reset", { ...this.position, before });
    },
    reconnect: ({ afterMs }) => {
      const wait = Math.min(Math.max(Number(afterMs) || 0, 0), AWAY_MAX_MS);
      const socket = this.#socket;
      this.#comeBackAt = this.#clock.now() + wait;
      this.#timers.set("leave", wait, () => {
        if (socket !== this.#socket) return;
        this.#detach();
        socket.close(1000);
        this.#unsend(false);
        this.#open();
      });
    },
    pong: () => {},
    error: (frame) => {
      const entry = this.#outbox.entries.get(frame.id);
      const { code = "error", message = code, id, retryable = false } = frame;
      if (entry && retryable) {
        entry.state = "queued";
        this.#hold();
        this.#queued([entry]);
      } else if (entry) {
        this.#fail(entry, new MeridianError(code, message, { id }));
      } else if (retryable) {      // a typing notice, which is over by then, or the list of presence
        if (id === undefined && this.#watched.length) this.#timers.set("presence", this.#pause(), () => this.#write({ type: "presence", users: this.#watched }));
      } else if (code !== "unknown_type") { // an older server does not know presence
        this.#emit("error", new MeridianError(code, message, { id }));
      }
    },
  };

  #place({ epoch, seq }) {
    if (typeof epoch === "string" && epoch && Number.isSafeInteger(seq)) this.#inbox.move(epoch, seq);
  }

  // What goes.

  #pump() {
    if (!this.#welcomed || this.#timers.has("hold")) return;
    for (const entry of this.#outbox.due(this.#alone ? 1 : this.#options.window)) {
      if (!this.#write(entry.frame)) return;
      entry.state = "sent";
      entry.sentAt = this.#clock.now();
      this.#emit("sent", describe(entry));
    }
    this.#await();
  }

  /** Waits for the answer to the oldest message that has none; a connection that gives none is replaced. */
  #await() {
    const sent = this.#outbox.sent();
    if (!sent.length || this.#timers.has("ack")) return;
    const socket = this.#socket, now = this.#clock.now();
    for (const entry of sent) entry.sentAt = Math.min(entry.sentAt, now); // later than now only where the clock was set back
    const left = Math.min(...sent.map(({ sentAt }) => sentAt)) + this.#options.ackTimeoutMs - now;
    if (left <= 0) this.#lost(socket, 0, "no acknowledgement in time", true);
    else this.#timers.set("ack", left, () => this.#await());
  }

  #queued(entries) {
    for (const entry of entries) this.#emit("queued", describe(entry));
    this.#pump();
  }

  #settle(entry, told) {
    this.#outbox.settle(entry, told);
    if (!this.#outbox.entries.size) this.#alone = false;
    this.#pump();
  }
  #fail(entry, error) {
    this.#settle(entry, this.#emit("error", error));
    entry.reject(error);
  }

  /** Refused for now: the rest waits too, which spares a server in trouble. */
  #hold() {
    if (this.#timers.has("hold")) return;
    this.#timers.set("hold", this.#pause(), () => this.#pump());
  }
  #pause() { return 250 + backoff(this.#holds++, 500, 10_000, this.#clock.random); }

  /** Without a connection nothing is under way; what was too large for a frame would end the next one too. */
  #unsend(tooLarge) {
    const flying = this.#outbox.sent();
    if (tooLarge && flying.length === 1) {
      const [entry] = flying.splice(0);
      this.#fail(entry, new MeridianError("text_too_long", "the message is too large for the server", { id: entry.frame.id }));
    }
    this.#alone ||= tooLarge;
    for (const entry of flying) entry.state = "queued";
    this.#queued(flying);
  }
}

const describe = ({ frame: { id, to, text, data }, order, state }) => ({ id, to, text, data, at: order, state });
