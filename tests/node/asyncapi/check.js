// Parses the AsyncAPI document on standard input, and prints what is wrong with it as JSON.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(readFileSync(0, "utf8"));
const problems = diagnostics.map(({ severity, code, message, path }) => ({ severity, code, message, path: path.join("/") }));
const operations = document?.allOperations().all().map((operation) => ({
  id: operation.id(),
  action: operation.action(),
  channels: operation.channels().all().map((channel) => channel.address()),
  messages: operation.messages().all().map((message) => message.name()),
  replies: operation.reply()?.messages().all().map((message) => message.title()) ?? [],
}));
console.log(JSON.stringify({ problems, operations }));
