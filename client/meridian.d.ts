/** Meridian's client library: chat over one WebSocket that comes back by itself. */

export interface Options {
  /** Of the chat: relative to the page, or `ws:`, `wss:`, `http:`, `https:`. Its query is kept. Default: `/ws`. */
  url?: string;
  userId: string;
  /** Of the connection; needed through a gateway, unknown to a hub's own port. */
  region?: string;
  /** Sent as the query parameter `token`; a function is asked before each attempt. */
  token?: string | (() => string | Promise<string>);
  /** Where position and outbox are kept. Default: IndexedDB in browsers, memory elsewhere. */
  storage?: Storage;
  /** What this user's keys in the storage begin with. Default: host and path of the address. */
  namespace?: string;
  /** A user whose position is not known gets all that the server still holds, not only what comes from now on. Default: false. */
  backlog?: boolean;
  /** Default: the global one (browsers, Node 22). */
  WebSocket?: new (url: string) => unknown;
  /** Messages without an answer at once; to one peer always one. Default: 16. */
  window?: number;
  /** Bounds of the outbox. Default: 500 messages, 4 MiB. */
  outboxMessages?: number;
  outboxBytes?: number;
  /** Messages remembered to drop repeats. Default: 2000. */
  seenMessages?: number;
  /** Messages that may wait for a `for await`. Default: 1000. */
  bufferedMessages?: number;
  /** From the first packet to the welcome. Default: 10 s. */
  handshakeTimeoutMs?: number;
  /** Default: 10 s. */
  pongTimeoutMs?: number;
  /** Default: 20 s. */
  ackTimeoutMs?: number;
  /** Pauses between attempts are random in 0 … min(cap, base · 2ⁿ). Default: 500 ms, 30 s. */
  backoffBaseMs?: number;
  backoffCapMs?: number;
  /** Time and chance, for tests. */
  clock?: Clock;
}

export interface Clock {
  now(): number;
  random(): number;
  setTimeout(action: () => void, ms: number): unknown;
  clearTimeout(timer: unknown): void;
}

/** Values are plain objects that can be cloned or written as JSON. Every method may be asynchronous. */
export interface Storage {
  get(key: string): unknown;
  set(key: string, value: unknown): unknown;
  delete(key: string): unknown;
  keys(): Iterable<string> | Promise<Iterable<string>>;
  /** All with this prefix in the order of their keys; `keys` and `get` serve where it is missing. */
  entries?(prefix: string): Iterable<[string, unknown]> | Promise<Iterable<[string, unknown]>>;
}

export interface Position {
  epoch: string;
  seq: number;
}

export interface Message {
  id: string;
  from: string;
  to: string;
  text?: string;
  data?: unknown;
  /** The sender's. */
  region?: string;
  /** Position in this user's inbox; 0 where the server keeps none. */
  seq: number;
  /** RFC 3339. */
  ts: string;
}

export interface Ack {
  id: string;
  to: string;
  /** Position in the recipient's inbox. */
  seq: number;
  ts: string;
  /** The server had it already. */
  duplicate: boolean;
}

/** A message on its way out. */
export interface Pending {
  id: string;
  to: string;
  text?: string;
  data?: unknown;
  /** When it was written, in milliseconds since 1970. */
  at: number;
  state: "storing" | "queued" | "sent";
}

export type StateName = "idle" | "connecting" | "connected" | "waiting" | "closed";

export interface State {
  state: StateName;
  /** connected: as the server has it. */
  userId?: string;
  region?: string;
  /** connected: nothing since the position before is missing. */
  resumed?: boolean;
  /** waiting: until the next attempt, its number, and when it is (milliseconds since 1970). */
  retryInMs?: number;
  retryAt?: number;
  attempt?: number;
  /** waiting, closed: why; absent after `close`. */
  error?: MeridianError;
}

export interface Events {
  /** Each message once. The position is stored when the promises that listeners return are through. */
  message: Message;
  /** A message of this user is stored and published. It leaves the outbox when what listeners return is through. */
  ack: Ack;
  /** It was written to the socket … */
  sent: Pending;
  /** … or waits (again): stored just now, taken over from an earlier page, refused for now, or the connection was lost. */
  queued: Pending;
  typing: { from: string };
  /** `lastSeen` is RFC 3339, or null where never seen. */
  presence: { userId: string; online: boolean; lastSeen: string | null };
  state: State;
  /** Messages may be missing before this position. */
  reset: Position & { before: Position | null };
  /** With `id`: this message is refused for good. */
  error: MeridianError;
}

export interface SendOptions {
  /** Any JSON value, beside the text or instead of it. */
  data?: unknown;
  /** 1 to 64 visible ASCII characters; the same id again is the same message. Default: random. */
  id?: string;
}

export class Meridian implements AsyncIterable<Message> {
  constructor(options: Options);
  readonly userId: string;
  readonly state: StateName;
  /** Of the last message handed on; null before the first welcome. */
  readonly position: Position | null;
  /** Of text and data of one message together; no bound (Infinity) before the first welcome. */
  readonly maxTextBytes: number;
  /** What is not settled yet, in the order of writing. */
  readonly pending: Pending[];
  /** Returns how to stop listening. */
  on<Name extends keyof Events>(event: Name, listener: (detail: Events[Name]) => unknown): () => void;
  off<Name extends keyof Events>(event: Name, listener: (detail: Events[Name]) => unknown): void;
  /** Begins to be connected, and stays so until `close` or a refusal that would only repeat. */
  connect(): void;
  /**
   * Settles when the server has the message, also after reconnections. Rejects when it is refused for good, and on `close` (code `closed`):
   * then it waits in the storage for the next `connect`.
   */
  send(to: string, text?: string | null, options?: SendOptions): Promise<Ack>;
  /** At most one each three seconds and peer; false where nothing went out. */
  typing(to: string): boolean;
  /** Asks now, and is told of changes from then on; replaces the earlier list, and outlives the connection. */
  presence(users: Iterable<string>): void;
  close(): void;
  [Symbol.asyncIterator](): AsyncIterator<Message>;
}

export class MeridianError extends Error {
  constructor(code: string, message: string, details?: object);
  readonly name: "MeridianError";
  /**
   * The server's (`text_too_long`, `user_invalid`, `region_unknown`, …) or the library's: `closed`, `outbox_full`, `policy`, `replaced`, `lost`,
   * `unreachable`, `refused`, `storage_failed`, `listener_failed`, `overflow`, `unsupported`, `url_invalid`.
   */
  readonly code: string;
  /** Of the message. */
  readonly id?: string;
  /** Of the refused handshake. */
  readonly status?: number;
  readonly closeCode?: number;
  readonly retryable?: boolean;
}

/** For the life of the process. */
export class MemoryStorage implements Storage {
  get(key: string): unknown;
  set(key: string, value: unknown): void;
  delete(key: string): void;
  keys(): string[];
}

/** For all pages of the origin. */
export class IndexedDbStorage implements Storage {
  constructor(name?: string);
  get(key: string): Promise<unknown>;
  set(key: string, value: unknown): Promise<void>;
  delete(key: string): Promise<void>;
  keys(): Promise<string[]>;
  entries(prefix: string): Promise<[string, unknown][]>;
}

/** The pause before attempt number `attempt` (from 0), in milliseconds: random in 0 … min(cap, base · 2^attempt). */
export function backoff(attempt: number, base: number, cap: number, random?: () => number): number;

/** An id for a message: 128 random bits. */
export function messageId(): string;
