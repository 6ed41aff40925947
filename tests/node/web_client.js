// Runs our browser client in Node: node web_client.js URL OPTIONS SCENARIO, as in socketio.js.
import { createInterface } from "node:readline";
import WebSocket from "ws";
import { Client } from "../../server/rfc6455_server/web/client.js";

const [url, optionsText, scenario] = process.argv.slice(2);
const tell = (...values) => console.log(JSON.stringify(values));
const options = { WebSocket, auth: { token: "s3cret" }, retryBase: 0.2, ...JSON.parse(optionsText) };
const open = (more = {}) => new Client(url, { ...options, ...more });
const moment = (client, name) => new Promise((resolve) => (client[name] = resolve));

const scenarios = {
  async tour() {
    const client = open();
    await moment(client, "onconnected");
    tell("state", client.state.name);
    tell("echo", await client.request("echo", "안녕 😀", { a: [1, null] }));
    client.on("question", (text) => text + "!");
    tell("ask me", await client.request("ask me", "well"));
    const hasty = open({ ackTimeout: 0.1 });
    await moment(hasty, "onconnected");
    await hasty.request("silence").catch((error) => tell("timeout", error.code));
    hasty.close();
    const bytes = new Uint8Array(1 << 20).map((_, i) => i % 251);
    const answer = await client.request("binary", { name: "n", data: bytes, more: [new Uint8Array([120])] });
    tell("binary", answer.data.length, answer.data.every((octet, i) => octet === ((i % 251) + 1) % 251));
    const order = [];
    client.on("number", (n) => order.push(n));
    await client.request("count", 200);
    tell("order", order.length, order.every((n, i) => n === i));
    const stranger = open({ auth: { token: "wrong" } });
    const refusal = await moment(stranger, "onrefused");
    tell("refused", refusal.message, refusal.data, stranger.state.name);
    client.close();
    tell("closed", client.state.name);
  },

  async listen() {
    const client = open();
    client.onstate = ({ name, retryIn }) => tell("state", name, retryIn);
    client.onconnected = (how) => tell("connected", how);
    client.onmissed = () => tell("missed");
    client.on("news", (value) => tell("news", value));
    for await (const line of createInterface({ input: process.stdin })) {
      const [name, ...args] = JSON.parse(line);
      if (name === "end") break;
      client.emit(name, ...args);
    }
  },
};

await scenarios[scenario]();
process.exit(0);
