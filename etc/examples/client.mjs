#!/usr/bin/env node
// A client of comfymux's Unix socket, with nothing but Node's own modules.
//
//     node client.mjs WORKFLOW.json
//
// Submits the workflow, shows its progress, prints its outputs as JSON. The
// socket is $COMFYMUX_SOCKET, or where comfymuxd listens by default. One JSON
// object a line goes either way: ipc/PROTOCOL.md has them all.
import { existsSync, readFileSync } from "node:fs";
import { createConnection } from "node:net";
import { createInterface } from "node:readline";

function socketPath() {
  const places = [process.env.COMFYMUX_SOCKET, `/run/user/${process.getuid()}/comfymux.sock`,
    "/run/comfymux/comfymux.sock"];
  return places.find((p) => p && existsSync(p)) ?? places.at(-1);
}

// The text goes on as it is: JSON.parse() would round seeds above 2^53. Only a
// line may it not be more than.
function oneLine(text) {
  JSON.parse(text); // a clear error here instead of one from afar
  return text.replace(/[\r\n]+/g, " ");
}

function fail(message) {
  console.error(`client.mjs: ${message}`);
  process.exit(1);
}

function onProgress(progress) {
  if (progress.current_node)
    console.error(`node ${progress.current_node}: ` +
      `${Math.round(100 * (progress.current_node_progress ?? 0))} %`);
  if (progress.status === "completed") {
    console.log(JSON.stringify(progress.outputs));
    process.exit(0);
  }
  if (progress.status === "failed") fail(progress.error.message);
}

if (process.argv.length !== 3) {
  console.error("usage: node client.mjs WORKFLOW.json");
  process.exit(2);
}
let workflow;
try {
  workflow = oneLine(readFileSync(process.argv[2], "utf8"));
} catch (error) {
  fail(error.message);
}

let promptId;
const supervisor = createConnection(socketPath());
supervisor.on("error", (error) => fail(error.message));
supervisor.on("close", () => fail("comfymuxd has hung up"));
createInterface({ input: supervisor }).on("line", (line) => {
  const message = JSON.parse(line);
  if (message.ok === false) fail(`${message.error.type}: ${message.error.message}`);
  if (message.id === 2) {
    promptId = message.result.prompt_id;
    console.error(`submitted ${promptId}`);
  } else if (message.event && message.prompt_id === promptId && message.progress) {
    onProgress(message.progress);
  }
});
supervisor.write('{"op":"hello","id":1,"client":"example in Node.js"}\n' +
  `{"op":"submit","id":2,"subscribe":true,"workflow":${workflow}}\n`);
