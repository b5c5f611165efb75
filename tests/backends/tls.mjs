// A backend behind TLS as Node has it: HTTP/1.1, and HTTP/2 where it is asked to; and an echo of short WebSocket
// frames, by hand. Says its port, and ends with its standard input.
//
//   node tls.mjs KEY CERT h1|h2

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import http2 from "node:http2";
import https from "node:https";

const [key, cert, version] = process.argv.slice(2);
const options = { key: readFileSync(key), cert: readFileSync(cert), allowHTTP1: true };
const server = version === "h2" ? http2.createSecureServer(options) : https.createServer(options);
let sessions = 0;
server.on("session", () => (sessions += 1));

server.on("request", (request, response) => {
  const body = [];
  request.on("data", (piece) => body.push(piece));
  request.on("end", () => {
    response.setHeader("x-version", request.httpVersion);
    response.setHeader("x-host", request.headers[":authority"] ?? request.headers.host);
    response.setHeader("x-sessions", String(sessions));
    response.end(`${request.method} ${request.url} ${Buffer.concat(body)}`);
  });
});

server.on("upgrade", (request, socket, head) => {
  const accept = createHash("sha1")
    .update(`${request.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
    .digest("base64");
  socket.write(
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
      `Sec-WebSocket-Accept: ${accept}\r\n\r\n`,
  );
  let left = head;
  const take = (piece) => {
    left = Buffer.concat([left, piece]);
    while (left.length >= 6 && left.length >= 6 + (left[1] & 0x7f)) {
      const length = left[1] & 0x7f;
      const payload = left.subarray(6, 6 + length).map((byte, index) => byte ^ left[2 + (index % 4)]);
      socket.write(Buffer.concat([Buffer.from([left[0], length]), payload]));
      if ((left[0] & 0x0f) === 8) socket.end();
      left = left.subarray(6 + length);
    }
  };
  socket.on("data", take);
  socket.on("error", () => socket.destroy());
  take(Buffer.alloc(0));
});

server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.on("end", () => process.exit(0)).resume();
