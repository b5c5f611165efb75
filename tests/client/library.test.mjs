/** What the library promises, on a clock and a wire of the test's own. Run by tests/it/library.rs, or `node --test tests/client/`. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import * as library from "../../client/meridian.js";
import { Locks, ack, client, connected, message, refusal, settle } from "./harness.mjs";

const { Meridian, MemoryStorage, backoff } = library;
const code = (wanted) => (error) => error instanceof library.MeridianError && error.code === wanted;

test("the types name what the module exports, and nothing else", async () => {
  const types = await readFile(new URL("../../client/meridian.d.ts", import.meta.url), "utf8");
  const declared = [...types.matchAll(/^export (?:class|function|const) (\w+)/gm)].map(([, name]) => name);
  assert.deepEqual(declared.sort(), Object.keys(library).sort());
  const body = types.slice(types.indexOf("export class Meridian "), types.indexOf("export class MeridianError"));
  const members = [...body.matchAll(/^ {2}(?:readonly )?(\w+)[<(:]/gm)].map(([, name]) => name);
  assert.deepEqual(members.sort(), Object.getOwnPropertyNames(Meridian.prototype).sort());
});

test("pauses are random up to a bound that doubles", () => {
  assert.deepEqual([0, 1, 2, 9, 5_000].map((attempt) => backoff(attempt, 500, 30_000, () => 1)), [500, 1_000, 2_000, 30_000, 30_000]);
  assert.equal(backoff(3, 500, 30_000, () => 0), 0, "full jitter begins at nothing");
});

test("addresses: http is taken for ws, the query is kept, region and token are added", async () => {
  const one = client({ url: "https://chat.test/ws?theme=dark#part", region: "eu", token: async () => "t1" });
  one.chat.connect();
  await settle();
  assert.equal(one.last().url.href, "wss://chat.test/ws?theme=dark&userId=alice&region=eu&token=t1");
  for (const wrong of [{ userId: "al ice" }, { userId: "" }, { url: "mailto:x" }]) assert.throws(() => client(wrong), library.MeridianError);
});

test("a user without a position asks for what comes from now on, or for all of it", async () => {
  const fresh = await connected();
  assert.equal(fresh.last().url.searchParams.has("since"), false);
  const all = await connected({ backlog: true });
  assert.deepEqual([all.last().url.searchParams.get("since"), all.last().url.searchParams.get("epoch")], ["0", ""]);
  assert.deepEqual(all.heard("reset"), [], "nothing that was had is missing");
});

test("a send is settled by its ack", async () => {
  const { chat, last, heard } = await connected();
  const sent = chat.send("bob", "hi", { id: "c1", data: { a: 1 } });
  await settle();
  assert.deepEqual(last().takes(), [{ type: "message", to: "bob", text: "hi", data: { a: 1 }, id: "c1" }]);
  await last().says(ack({ id: "c1" }, { seq: 7, duplicate: true }));
  assert.deepEqual(await sent, { id: "c1", to: "bob", seq: 7, ts: "2026-11-21T09:30:00.000Z", duplicate: true });
  assert.deepEqual(heard("ack").length, 1);
  assert.deepEqual(chat.pending, []);
});

test("what the server would not take is refused at once", async () => {
  const { chat, last } = await connected();
  await assert.rejects(chat.send("b ob", "hi"), code("user_invalid"));
  await assert.rejects(chat.send("bob", ""), code("text_empty"));
  await assert.rejects(chat.send("bob", "hi", { id: "a b" }), code("id_invalid"));
  await assert.rejects(chat.send("bob", "é".repeat(33)), code("text_too_long"));
  await settle();
  assert.deepEqual(last().takes(), []);
});

test("half a surrogate pair goes out as U+FFFD", async () => {
  const { chat, last } = await connected();
  chat.send("bob", "a\ud83d b 😀");
  await settle();
  assert.deepEqual(last().texts(), ["a\ufffd b 😀"]);
});

test("a refusal for good rejects, and what waits behind it goes on", async () => {
  const { chat, last, heard } = await connected();
  const [first, second] = [chat.send("bob", "1"), chat.send("bob", "2")];
  await settle();
  await last().says(refusal("bad_frame", last().takes()[0], false));
  await assert.rejects(first, code("bad_frame"));
  assert.equal(heard("error")[0].code, "bad_frame");
  const [frame] = last().takes();
  await last().says(ack(frame));
  assert.equal((await second).id, frame.id);
});

test("to one peer one at a time, to many at once up to the window", async () => {
  const { chat, last } = await connected({ window: 3 });
  for (const to of ["bob", "bob", "carol", "dave", "erin"]) chat.send(to, to);
  await settle();
  const frames = last().takes();
  assert.deepEqual(frames.map(({ to }) => to), ["bob", "carol", "dave"]);
  await last().says(ack(frames[1]));
  assert.deepEqual(last().texts(), ["erin"], "bob's second waits for his first");
  await last().says(ack(frames[0]));
  assert.deepEqual(last().texts(), ["bob"]);
});

test("rate_limited and bus_unavailable: again after a pause, under the same id, in order", async () => {
  for (const reason of ["rate_limited", "bus_unavailable"]) {
    const { chat, clock, last } = await connected();
    const all = ["1", "2", "3"].map((text) => chat.send("bob", text));
    await settle();
    let [frame] = last().takes();
    const { id } = frame;
    for (let round = 0; round < 3; round += 1) {
      await last().says(refusal(reason, frame));
      await clock.pass(250 + 500 * 2 ** round - 1);
      assert.deepEqual(last().takes(), [], "each time later");
      await clock.pass(1);
      [frame] = last().takes();
      assert.equal(frame.id, id);
    }
    for (const text of ["1", "2", "3"]) {
      assert.equal(frame.text, text);
      await last().says(ack(frame));
      [frame] = last().takes();
    }
    await Promise.all(all);
  }
});

test("what was on its way goes out again on the next connection, under its id and in order", async () => {
  const { chat, clock, last, sockets } = await connected();
  const all = ["1", "2"].map((text) => chat.send("bob", text));
  await settle();
  const [before] = last().takes();
  await last().ends(1006);
  chat.send("bob", "3");
  await clock.pass(500);
  assert.equal(sockets.length, 2);
  await last().welcomes();
  const [again] = last().takes();
  assert.deepEqual(again, before);
  await last().says(ack(again, { duplicate: true }));
  assert.deepEqual(last().texts(), ["2"]);
  assert.equal((await all[0]).duplicate, true);
});

test("the outbox outlives its page, order and all", async () => {
  const storage = new MemoryStorage();
  const before = client({ storage });
  for (const text of ["1", "2", "3"]) before.chat.send("bob", text);
  await settle();
  const after = await connected({ storage });
  for (const text of ["1", "2", "3"]) {
    const [frame] = after.last().takes();
    assert.equal(frame.text, text);
    const joined = after.chat.send("bob", "whatever", { id: frame.id });
    await after.last().says(ack(frame));
    assert.equal((await joined).id, frame.id, "a promise for it can be had again");
  }
  assert.deepEqual([...storage.keys()].filter((key) => key.includes("outbox")), []);
});

test("a full outbox says so", async () => {
  const few = client({ outboxMessages: 2 });
  few.chat.send("bob", "1");
  few.chat.send("bob", "2");
  await assert.rejects(few.chat.send("bob", "3"), code("outbox_full"));
  const small = client({ outboxBytes: 10 });
  small.chat.send("bob", "12345678");
  await assert.rejects(small.chat.send("bob", "123"), code("outbox_full"));
});

test("close rejects what is not acknowledged and keeps it for the next connect", async () => {
  const { chat, last, sockets } = await connected();
  const sent = chat.send("bob", "hi");
  await settle();
  const [frame] = last().takes();
  chat.close();
  await assert.rejects(sent, code("closed"));
  assert.deepEqual([chat.state, last().closed], ["closed", 1000]);
  chat.connect();
  await settle();
  assert.equal(sockets.length, 2);
  await last().welcomes();
  assert.deepEqual(last().takes(), [frame]);
});

test("closed before it began, it opens nothing and takes nothing over", async () => {
  const storage = new MemoryStorage();
  client({ storage }).chat.send("bob", "hi");
  await settle();
  const { chat, sockets } = client({ storage });
  chat.connect();
  chat.close();
  await settle();
  assert.deepEqual([chat.state, chat.pending, sockets.length], ["closed", [], 0]);
  chat.connect();
  await settle();
  assert.deepEqual([chat.state, chat.pending.length, sockets.length], ["connecting", 1, 1]);
});

test("closed by a listener that hears it is connected, nothing of it runs on", async () => {
  const { chat, clock, last } = client({});
  chat.on("state", ({ state }) => { if (state === "connected") chat.close(); });
  chat.connect();
  await settle();
  await last().welcomes();
  assert.deepEqual([chat.state, last().closed, clock.running], ["closed", 1000, 0]);
});

test("what the machine says of its network is used", async () => {
  const events = new EventTarget();
  globalThis.addEventListener = events.addEventListener.bind(events);
  globalThis.removeEventListener = events.removeEventListener.bind(events);
  try {
    const { chat, last, sockets, clock } = await connected();
    events.dispatchEvent(new Event("offline"));
    assert.deepEqual(last().frames, [{ type: "ping" }], "it looks at once whether that concerns it");
    await last().ends(1006);
    events.dispatchEvent(new Event("online"));
    await settle();
    assert.equal(sockets.length, 2, "no reason to wait on");
    await last().welcomes();
    await last().says({ type: "reconnect", afterMs: 5_000 });
    await last().ends(1012);
    events.dispatchEvent(new Event("online"));
    await clock.pass(4_999);
    assert.equal(sockets.length, 2, "unless the server asked for it");
    chat.close();
    events.dispatchEvent(new Event("online"));
    await clock.pass(60_000);
    assert.equal(sockets.length, 2);
  } finally {
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
  }
});

test("a server that refuses for good ends the attempts, one that may change its mind does not", async () => {
  const answers = new Map();
  const { fetch } = globalThis;
  globalThis.fetch = async (url) => {
    const { status, code } = answers.get(new URL(url).pathname) ?? (() => { throw new TypeError("refused"); })();
    return { status, json: async () => ({ error: { code, message: `it is ${code}` } }) };
  };
  try {
    for (const [status, refused, token, state] of [
      [401, "unauthorized", "t", "closed"], [401, "unauthorized", () => "t", "waiting"], [403, "origin_forbidden", undefined, "closed"],
      [400, "region_invalid", undefined, "closed"], [404, "region_unknown", undefined, "closed"], [404, "not_found", undefined, "waiting"],
      [400, "upgrade_required", undefined, "waiting"], [429, "too_many_connections", undefined, "waiting"], [503, "draining", undefined, "waiting"],
    ]) {
      answers.set("/ws", { status, code: refused });
      const { chat, last, heard } = client({ token });
      chat.connect();
      await settle();
      await last().ends(1006);
      assert.equal(chat.state, state, `${status} ${refused}`);
      const { error } = heard("state").at(-1);
      assert.equal(error.code, refused === "upgrade_required" ? "refused" : refused);
    }
    answers.clear();
    const { chat, last, heard } = client();
    chat.connect();
    await settle();
    await last().ends(1006);
    assert.deepEqual([chat.state, heard("state").at(-1).error.code], ["waiting", "unreachable"]);
  } finally {
    globalThis.fetch = fetch;
  }
});

test("it resumes where the listeners are through", async () => {
  const storage = new MemoryStorage();
  const { chat, last } = await connected({ storage });
  let through;
  chat.on("message", ({ seq }) => seq === 2 ? new Promise((done) => { through = done; }) : undefined);
  await last().says(message(1), message(2), message(3));
  assert.deepEqual(chat.position, { epoch: "e1", seq: 3 });
  const early = await connected({ storage });
  assert.equal(early.last().url.searchParams.get("since"), "1", "a page that dies now gets the second one again …");
  await early.last().says(message(2), message(3));
  assert.deepEqual(early.heard("message").map(({ seq }) => seq), [2, 3], "… and its listeners too");
  through();
  await settle();
  const late = client({ storage });
  late.chat.connect();
  await settle();
  assert.deepEqual([late.last().url.searchParams.get("since"), late.last().url.searchParams.get("epoch")], ["3", "e1"]);
});

test("repeats are dropped by sender and id, also across a reload without resumption", async () => {
  const storage = new MemoryStorage();
  const before = await connected({ storage });
  await before.last().says(message(1), message(2), message(3, { id: "m2" }), message(4, { id: "m2", from: "carol" }));
  assert.deepEqual(before.heard("message").map(({ seq }) => seq), [1, 2, 4]);
  const after = client({ storage });
  after.chat.connect();
  await settle();
  await after.last().welcomes({ epoch: "e2", seq: 0, resumed: false });
  assert.equal(after.heard("reset").length, 1);
  await after.last().says(message(1), message(2), message(5));
  assert.deepEqual(after.heard("message").map(({ seq }) => seq), [5]);
  assert.deepEqual(after.chat.position, { epoch: "e2", seq: 5 });
  await after.last().says(message(4, { id: "late" }));
  assert.deepEqual(after.chat.position, { epoch: "e2", seq: 5 }, "it never goes back by a message");
  const third = await connected({ storage });
  await third.last().says(message(6, { id: "m2", from: "carol" }), message(7, { id: "m5" }));
  assert.deepEqual(third.heard("message"), [], "nor is anything forgotten on the way");
});

test("what is remembered is bounded", async () => {
  const { storage, last } = await connected({ seenMessages: 10 });
  await last().says(...Array.from({ length: 50 }, (_, index) => message(index + 1)));
  const stored = storage.get([...storage.keys()].find((key) => key.endsWith("position")));
  assert.deepEqual([stored.seq, stored.seen.length, stored.seen.at(-1)], [50, 10, "bob m50"]);
});

test("another tab of the same user that is ahead is not overtaken backwards", async () => {
  const storage = new MemoryStorage();
  const [ahead, behind] = [await connected({ storage }), await connected({ storage })];
  await ahead.last().says(message(1), message(2));
  await behind.last().says(message(1));
  const stored = storage.get([...storage.keys()].find((key) => key.endsWith("position")));
  assert.deepEqual([stored.seq, stored.seen.sort()], [2, ["bob m1", "bob m2"]]);
});

test("reset moves the position; after a welcome without one, the same position is no loss", async () => {
  const { chat, last, clock, heard } = await connected();
  await last().says(message(1), { type: "reset", epoch: "e1", seq: 9 }, message(10));
  assert.deepEqual(heard("reset"), [{ epoch: "e1", seq: 9, before: { epoch: "e1", seq: 1 } }]);
  await last().ends(1012);
  await clock.pass(500);
  await last().welcomes({ epoch: "", seq: 0, resumed: false });
  assert.deepEqual(chat.position, { epoch: "e1", seq: 10 }, "kept, so that the next connection can still ask");
  await last().says({ type: "reset", epoch: "e1", seq: 10 });
  assert.equal(heard("reset").length, 1);
});

test("what another tab was given in another epoch is a repeat here, too", async () => {
  const storage = new MemoryStorage();
  const [one, other] = [await connected({ storage }), await connected({ storage })];
  await one.last().says({ type: "reset", epoch: "e2", seq: 0 }, message(1));
  await other.last().says(message(2));
  const after = client({ storage });
  after.chat.connect();
  await settle();
  await after.last().welcomes({ epoch: "e2", seq: 0, resumed: false });
  await after.last().says(message(1), message(2), message(3));
  assert.deepEqual(after.heard("message").map(({ id }) => id), ["m3"]);
});

test("a server that keeps nothing (seq 0) is understood", async () => {
  const { chat, last, heard } = client();
  chat.connect();
  await settle();
  await last().welcomes({ epoch: "", seq: 0 });
  await last().says(message(0, { id: "a" }), message(0, { id: "b" }), message(0, { id: "a" }));
  assert.deepEqual(heard("message").map(({ id }) => id), ["a", "b"]);
  assert.equal(chat.position, null);
});

test("reconnect: after its time, whether the old socket is closed by then or not", async () => {
  for (const closes of [true, false]) {
    const { clock, last, sockets, heard } = await connected();
    await last().says({ type: "reconnect", afterMs: 1_830 }, message(1));
    if (closes) await last().ends(1012);
    await clock.pass(1_829);
    assert.equal(sockets.length, 1);
    await clock.pass(1);
    assert.equal(sockets.length, 2);
    assert.equal(last().url.searchParams.get("since"), "1");
    assert.equal(heard("message").length, 1, "what came before counts");
  }
});

test("1012, 1006, 1013 and 4008 come back; 1008 and 4001 do not", async () => {
  for (const [closeCode, pause] of [[1001, 500], [1006, 500], [1012, 500], [4000, 500], [4008, 500], [1013, 1_500]]) {
    const { clock, last, sockets, heard } = await connected();
    await last().ends(closeCode);
    assert.equal(heard("state").at(-1).retryInMs, pause, String(closeCode));
    await clock.pass(pause);
    assert.equal(sockets.length, 2);
  }
  for (const [closeCode, reason] of [[1008, "policy"], [4001, "replaced"]]) {
    const { chat, clock, last, sockets, heard } = await connected();
    const sent = chat.send("bob", "hi");
    await settle();
    await last().ends(closeCode);
    await clock.pass(3_600_000);
    assert.equal(sockets.length, 1);
    assert.deepEqual([heard("state").at(-1).state, heard("state").at(-1).error.code], ["closed", reason]);
    assert.equal(chat.pending.length, 1, "what waits is kept …");
    chat.connect();
    await settle();
    await last().welcomes();
    await last().says(ack(last().takes()[0]));
    await sent;                    // … and settled by another connect
  }
});

test("a frame that is too large is found out and refused, the others go on", async () => {
  const { chat, clock, last } = await connected();
  const sends = ["bob", "carol"].map((to) => chat.send(to, to));
  await settle();
  await last().ends(1009);
  await clock.pass(500);
  await last().welcomes();
  assert.deepEqual(last().texts(), ["bob"], "alone, to see");
  await last().ends(1009);
  await assert.rejects(sends[0], code("text_too_long"));
  await clock.pass(1_000);
  await last().welcomes();
  await last().says(ack(last().takes()[0]));
  await sends[1];
});

test("ended by the server, it can be connected again where there are locks", async (context) => {
  const before = Object.getOwnPropertyDescriptor(globalThis, "navigator");
  Object.defineProperty(globalThis, "navigator", { value: { locks: new Locks() }, configurable: true });
  context.after(() => before ? Object.defineProperty(globalThis, "navigator", before) : delete globalThis.navigator);
  const { chat, last, sockets } = await connected();
  const sent = chat.send("bob", "hi");
  await settle();
  await last().ends(4001);
  assert.equal(chat.state, "closed");
  chat.connect();
  await settle();
  assert.equal(sockets.length, 2, "this tab's own lock is no reason to wait");
  await last().welcomes();
  const [frame] = last().takes();
  await last().says(ack(frame));
  assert.equal((await sent).id, frame.id, "the promise of before");
});

test("pauses grow while nobody answers and begin anew after a steady connection", async () => {
  const { clock, last, heard } = await connected();
  await last().ends(1006);
  for (const pause of [500, 1_000, 2_000]) {
    assert.equal(heard("state").at(-1).retryInMs, pause);
    await clock.pass(pause);
    last().opens();
    await last().ends(1006);
  }
  await clock.pass(4_000);
  await last().welcomes();
  await clock.pass(5_000);
  await last().ends(1006);
  assert.equal(heard("state").at(-1).retryInMs, 500);
});

test("a dead network is noticed: a ping without any answer ends the connection", async () => {
  const { clock, last, sockets, heard } = await connected();
  await clock.pass(30_000);
  assert.deepEqual(last().frames, [{ type: "ping" }]);
  await last().says({ type: "pong" });
  await clock.pass(29_000);
  assert.equal(last().frames.length, 1, "not before its time");
  await clock.pass(1_000 + 9_999);
  assert.equal(heard("state").at(-1).state, "connected");
  await clock.pass(1 + 500);
  assert.equal(sockets.length, 2);
  await last().welcomes();
  await clock.pass(29_000);
  await last().says(message(1));
  await clock.pass(29_999);
  assert.deepEqual(last().frames, [], "whatever comes proves the connection");
});

test("a clock that is set back keeps nothing from being noticed", async () => {
  const quiet = await connected();
  quiet.clock.shift = -3_600_000;
  await quiet.clock.pass(80_000);
  assert.equal(quiet.heard("state").at(-1).error.message.includes("no pong"), true, "nothing was heard for over a minute");

  const { chat, clock, heard, last } = await connected();
  chat.send("bob", "hi");
  await settle();
  clock.shift = -3_600_000;
  for (let second = 0; second < 45; second += 1) {
    await clock.pass(1_000);
    if (chat.state === "connected") await last().says({ type: "pong" });
  }
  assert.equal(heard("state").some(({ error }) => error?.message.includes("no acknowledgement")), true);
});

test("a welcome that does not come, and an answer that does not come", async () => {
  const { chat, clock, last, sockets, heard } = client();
  chat.connect();
  await settle();
  last().opens();
  await clock.pass(10_500);
  assert.equal(sockets.length, 2);
  await last().welcomes();
  chat.send("bob", "hi");
  await settle();
  const [frame] = last().takes();
  for (let second = 0; second < 20; second += 1) {
    await last().says({ type: "pong" });
    await clock.pass(1_000);
  }
  assert.equal(heard("state").at(-1).state, "waiting", "a live connection that does not answer is replaced");
  await clock.pass(1_000);
  await last().welcomes();
  assert.deepEqual(last().takes(), [frame]);
});

test("presence is asked for again on each connection; a server that knows none is no error", async () => {
  const { chat, clock, last, heard } = await connected();
  chat.presence(["bob", "carol", "bob"]);
  assert.deepEqual(last().takes(), [{ type: "presence", users: ["bob", "carol"] }]);
  await last().says({ type: "error", code: "unknown_type", message: "?" }, { type: "presence", userId: "bob", online: false });
  assert.deepEqual([heard("error"), heard("presence")], [[], [{ userId: "bob", online: false, lastSeen: null }]]);
  await last().says({ type: "error", code: "rate_limited", message: "?", retryable: true });
  await clock.pass(750);
  assert.deepEqual(last().takes(), [{ type: "presence", users: ["bob", "carol"] }], "refused for now: again");
  await last().ends(1006);
  await clock.pass(500);
  await last().welcomes();
  assert.deepEqual(last().takes(), [{ type: "presence", users: ["bob", "carol"] }]);
  assert.throws(() => chat.presence(["bo b"]), code("user_invalid"));
  chat.presence([]);
  chat.presence([]);
  assert.deepEqual(last().takes(), [{ type: "presence", users: [] }]);
});

test("typing is throttled for each peer", async () => {
  const { chat, clock, last } = await connected();
  assert.deepEqual([chat.typing("bob"), chat.typing("bob"), chat.typing("carol")], [true, false, true]);
  await clock.pass(3_000);
  assert.equal(chat.typing("bob"), true);
  assert.equal(last().takes().length, 3);
});

test("nonsense from the wire harms nothing", async () => {
  const { last, told } = await connected();
  const before = told.length;
  await last().says("{", "[]", "null", "7", { type: "constructor" }, { type: "message" }, { type: "ack", id: "unknown" }, { type: "typing" }, { type: "new-thing" });
  assert.equal(told.length, before);
});

test("a listener that fails costs nobody else the event, and is told", async () => {
  const { chat, last, heard } = client();
  chat.on("message", () => { throw new Error("broken"); });
  chat.on("message", async () => { throw new Error("broken too"); });
  const good = [];
  chat.on("message", ({ id }) => { good.push(id); });
  chat.connect();
  await settle();
  await last().welcomes();
  await last().says(message(1), message(2));
  assert.deepEqual(good, ["m1", "m2"]);
  assert.deepEqual(heard("error").map((error) => error.code), Array(4).fill("listener_failed"));
});

test("a storage that fails is told once, and costs no message", async () => {
  const broken = async () => { throw new Error("disk full"); };
  const storage = { get: broken, set: broken, delete: broken, keys: broken };
  const { chat, last, heard } = client({ storage });
  chat.connect();
  const sent = chat.send("bob", "hi");
  await settle();
  await last().welcomes();
  await last().says(message(1), ack(last().takes()[0]));
  await sent;
  assert.deepEqual(heard("error").map((error) => error.code), ["storage_failed"]);
  assert.equal(heard("message").length, 1);
});

test("a database that could not be opened is opened by the next use, and read in one transaction", async (context) => {
  let opened = 0, transactions = 0;
  const soon = (action) => queueMicrotask(action);
  const store = { getAllKeys: () => ({ result: ["a|1", "a|2"] }), getAll: () => ({ result: ["one", "two"] }) };
  const database = {
    transaction() {
      transactions += 1;
      const transaction = { objectStore: () => store };
      soon(() => transaction.oncomplete());
      return transaction;
    },
  };
  globalThis.IDBKeyRange = { bound: (...ends) => ends };
  globalThis.indexedDB = {
    open() {
      const request = { error: new Error("busy"), result: database };
      soon(() => opened++ ? request.onsuccess() : request.onerror());
      return request;
    },
  };
  context.after(() => { delete globalThis.IDBKeyRange; delete globalThis.indexedDB; });
  const storage = new library.IndexedDbStorage();
  await assert.rejects(storage.entries("a|"), /busy/);
  assert.deepEqual(await storage.entries("a|"), [["a|1", "one"], ["a|2", "two"]]);
  assert.equal(transactions, 1);
});

test("messages can be iterated; the position follows the reader", async () => {
  const { chat, last, storage } = await connected();
  const read = [];
  const reader = (async () => { for await (const { seq } of chat) if (read.push(seq) === 2) await new Promise(() => {}); })();
  await settle();
  await last().says(message(1), message(2), message(3));
  assert.deepEqual(read, [1, 2]);
  const key = [...storage.keys()].find((one) => one.endsWith("position"));
  assert.equal(storage.get(key).seq, 1, "the second is still in work");
  const slow = await connected({ bufferedMessages: 2 });
  const stream = slow.chat[Symbol.asyncIterator]();
  const first = stream.next();
  await slow.last().says(...[1, 2, 3, 4].map((seq) => message(seq)));
  assert.equal((await first).value.seq, 1);
  await stream.next();
  await assert.rejects(stream.next(), code("overflow"));
  const brief = await connected();
  const all = (async () => { const got = []; for await (const { seq } of brief.chat) got.push(seq); return got; })();
  await settle();
  await brief.last().says(message(1), message(2));
  brief.chat.close();
  assert.deepEqual(await all, [1, 2]);
  reader.catch(() => {});
});
