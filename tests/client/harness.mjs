/**
 * The library on a clock and a wire of the test's own: time passes when the test says so, and the test is the server.
 */
import { Meridian, MemoryStorage } from "../../client/meridian.js";

/** Lets everything that is ready run, also what becomes ready by that. */
export async function settle() {
  for (let turn = 0; turn < 5; turn += 1) await new Promise((done) => setImmediate(done));
}

export class Clock {
  time = 1_000_000;
  shift = 0;                       // what was done to the clock on the wall; timers do not care
  chance = 1;                      // the longest pause that jitter allows
  #timers = new Map();
  #next = 1;
  now = () => this.time + this.shift;
  random = () => this.chance;
  setTimeout = (action, ms) => { this.#timers.set(this.#next, { at: this.time + ms, action }); return this.#next++; };
  clearTimeout = (timer) => { this.#timers.delete(timer); };
  /** How many timers run: what keeps a process. */
  get running() { return this.#timers.size; }

  /** Lets `ms` pass, timer by timer. */
  async pass(ms) {
    const end = this.time + ms;
    for (;;) {
      const [timer, due] = [...this.#timers].sort(([, a], [, b]) => a.at - b.at)[0] ?? [];
      if (!due || due.at > end) break;
      this.time = Math.max(this.time, due.at);
      this.#timers.delete(timer);
      due.action();
      await settle();
    }
    this.time = end;
    await settle();
  }
}

/** Web Locks as a browser has them, as far as the library uses them. */
export class Locks {
  #queues = new Map();             // name → what holds it, or waits for it, in order
  async request(name, options, action = options) {
    const queue = this.#queues.get(name) ?? [];
    this.#queues.set(name, queue);
    if (options.ifAvailable && queue.length) return action(null);
    const turn = {};
    turn.comes = new Promise((resolve, reject) => {
      turn.begin = resolve;
      options.signal?.addEventListener("abort", () => reject(options.signal.reason));
    });
    queue.push(turn);
    if (queue[0] === turn) turn.begin();
    try {
      await turn.comes;
      return await action({ name });
    } finally {
      const first = queue[0] === turn;
      queue.splice(queue.indexOf(turn), 1);
      if (first) queue[0]?.begin();
    }
  }
}

/** A class of sockets; what is opened is collected in `sockets`. */
export function wire() {
  const sockets = [];
  class Socket {
    readyState = 0;
    frames = [];                   // what the client sent and the test has not looked at
    closed;
    constructor(url) {
      this.url = new URL(url);
      sockets.push(this);
    }
    send(text) { this.frames.push(JSON.parse(text)); }
    close(code) {
      this.closed ??= code ?? 1005;
      this.readyState = 3;
    }
    opens() {
      this.readyState = 1;
      this.onopen({});
    }
    async says(...frames) {
      for (const frame of frames) this.onmessage({ data: typeof frame === "string" ? frame : JSON.stringify(frame) });
      await settle();
    }
    async welcomes(more = {}) {
      this.opens();
      const { since, epoch } = Object.fromEntries(this.url.searchParams);
      await this.says({
        type: "welcome", userId: this.url.searchParams.get("userId"), region: "1", epoch: epoch || "e1", seq: Number(since ?? 0),
        resumed: since !== undefined, pingIntervalMs: 30_000, maxTextBytes: 64, ...more,
      });
    }
    async ends(code, reason = "") {
      this.readyState = 3;
      this.onclose({ code, reason });
      await settle();
    }
    /** The frames since the last look, pings aside. */
    takes() { return this.frames.splice(0).filter(({ type }) => type !== "ping"); }
    /** The texts among them. */
    texts() { return this.takes().map(({ text }) => text); }
  }
  return { Socket, sockets, last: () => sockets.at(-1) };
}

/** A client of alice's with all that it told, on `storage`. */
export function client(options = {}) {
  const clock = options.clock ?? new Clock();
  const net = wire();
  const storage = options.storage ?? new MemoryStorage();
  const chat = new Meridian({ url: "ws://hub.test/ws", userId: "alice", WebSocket: net.Socket, ...options, storage, clock });
  const told = [];
  for (const event of ["message", "ack", "sent", "queued", "typing", "presence", "state", "reset", "error"]) {
    chat.on(event, (detail) => { told.push([event, detail]); });
  }
  const heard = (event) => told.filter(([name]) => name === event).map(([, detail]) => detail);
  return { chat, clock, storage, told, heard, ...net };
}

/** The same, connected and welcomed. */
export async function connected(options) {
  const all = client(options);
  all.chat.connect();
  await settle();
  await all.last().welcomes();
  return all;
}

export const message = (seq, more = {}) => ({ type: "message", id: `m${seq}`, from: "bob", to: "alice", text: `text ${seq}`, region: "2", seq, ts: "2026-11-21T09:30:00.000Z", ...more });
export const ack = ({ id }, more = {}) => ({ type: "ack", id, seq: 1, ts: "2026-11-21T09:30:00.000Z", duplicate: false, ...more });
export const refusal = (code, { id }, retryable = true) => ({ type: "error", code, message: "refused", id, ...(retryable && { retryable }) });
