/**
 * alice writes to bob, one message after the other, while the test outside breaks what it wants. Arguments: proxy address, count.
 *
 * Prints a JSON line for each message that was acknowledged or heard, and in the end all that bob heard; exits with 0 when he heard
 * every message. Half way bob's process "dies": a new client goes on with his storage.
 */
import { createRequire } from "node:module";
import { Meridian, MemoryStorage } from "../../client/meridian.js";

// Node has had a class of its own since 22, and before it behind a flag; Debian's `ws` serves where there is none.
const WebSocket = globalThis.WebSocket ?? createRequire(import.meta.url)("/usr/share/nodejs/ws");
const [address, count] = [process.argv[2], Number(process.argv[3])];
const tell = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const options = { url: `http://${address}/ws`, WebSocket, backoffBaseMs: 50, backoffCapMs: 500 };

const heard = [];
const complete = new Promise((done) => {
  const storage = new MemoryStorage();
  let bob;
  const live = () => {
    if (heard.length === count) return;   // what a burst brought at once was all, and he is closed for good
    bob = new Meridian({ ...options, userId: "bob", region: "2", storage });
    bob.on("message", ({ id, text }) => {
      heard.push(text);
      tell({ heard: id });
      if (heard.length === Math.trunc(count / 2)) queueMicrotask(die);
      if (heard.length === count) queueMicrotask(() => { bob.close(); done(); });
    });
    bob.on("reset", (reset) => tell({ reset }));
    bob.connect();
  };
  // What was handed to the listener and not yet stored comes again, unless the storage has caught up: wait for that, as a clean stop would.
  const die = () => { bob.close(); setImmediate(() => setImmediate(live)); };
  live();
});

const alice = new Meridian({ ...options, userId: "alice", region: "1", storage: new MemoryStorage() });
alice.on("state", ({ state }) => tell({ state }));
alice.connect();
const texts = Array.from({ length: count }, (_, index) => `message ${index}`);
const waiting = [];
for (const text of texts) {
  waiting.push(alice.send("bob", text).then(({ id }) => tell({ acknowledged: id })));
  if (waiting.length % 20 === 0) await Promise.race([waiting.at(-15), new Promise((done) => { setTimeout(done, 2_000); })]);
}
await Promise.all(waiting);
alice.close();
await complete;
tell({ all: heard });
// Nothing of a client that was closed keeps the process: it ends by itself.
process.exitCode = JSON.stringify(heard) === JSON.stringify(texts) ? 0 : 1;
