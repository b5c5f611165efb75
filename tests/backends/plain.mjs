// A backend as Node has it, by plain HTTP/1.1. Says its port, and ends with its standard input.

import { createHash } from "node:crypto";
import http from "node:http";

const server = http.createServer((request, response) => {
  const digest = createHash("sha256");
  let length = 0;
  request.on("data", (piece) => {
    digest.update(piece);
    length += piece.length;
  });
  request.on("end", () => {
    const { pathname, searchParams } = new URL(request.url, "http://a");
    response.setHeader("x-port", String(request.socket.remotePort));
    if (pathname === "/large") {
      // In chunks, as much as it is asked for.
      for (let left = Number(searchParams.get("size")); left > 0; left -= 65536) response.write(Buffer.alloc(Math.min(left, 65536), "x"));
      return response.end();
    }
    if (pathname === "/trailers") {
      response.setHeader("trailer", "x-sum");
      response.write("body");
      response.addTrailers({ "x-sum": "42" });
      return response.end();
    }
    if (pathname === "/early") response.writeEarlyHints({ link: "</a.css>; rel=preload" });
    const framing = request.headers["transfer-encoding"] ?? request.headers["content-length"] ?? "none";
    response.end(`${request.method} ${request.url} ${framing} ${length} ${digest.digest("hex")}`);
  });
});
// A client that is too quick must not meet a connection that was just closed.
server.keepAliveTimeout = 60_000;
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.resume().on("end", () => process.exit());
