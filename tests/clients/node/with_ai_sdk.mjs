// Vercel's AI SDK, by its provider for servers that speak OpenAI's API.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, Output, streamText, tool } from "ai";
import { z } from "zod";

const baseURL = `${process.env.CLIENTS_URL}/v1`;
const provider = createOpenAICompatible({ name: "here", baseURL, includeUsage: true, supportsStructuredOutputs: true });
const data = readFileSync(`${process.env.CLIENTS_CLIPS}/dog.wav`);
const heard = { type: "file", mediaType: "audio/wav", data };
const messages = [{ role: "user", content: [heard, { type: "text", text: "What is that sound?" }] }];
const turn = { model: provider("nano"), temperature: 0, maxOutputTokens: 300, maxRetries: 0, messages };
const Sound = z.object({ kind: z.enum(["dog", "cat", "rain"]), loud: z.boolean() });
const Light = z.object({ room: z.enum(["kitchen", "bath"]), on: z.boolean() });
const set_light = tool({ description: "Turns the light in a room on or off.", inputSchema: Light });

test("an answer", async () => {
  const answer = await generateText(turn);
  assert.match(answer.text, /dog/i);
  assert.ok(answer.usage.inputTokens > 0);
});

test("a stream with usage", async () => {
  const stream = streamText(turn);
  let text = "";
  for await (const delta of stream.textStream) text += delta;
  assert.match(text, /dog/i);
  assert.ok((await stream.usage).inputTokens > 0);
});

test("an answer held to a schema", async () => {
  const output = Output.object({ schema: Sound });
  Sound.parse((await generateText({ ...turn, output })).output);
});

test("tools", async () => {
  const options = { tools: { set_light }, toolChoice: { type: "tool", toolName: "set_light" } };
  const [call] = (await generateText({ ...turn, ...options })).toolCalls;
  assert.equal(call.toolName, "set_light");
  Light.parse(call.input);
});

test("tools streamed", async () => {
  const options = { tools: { set_light }, toolChoice: { type: "tool", toolName: "set_light" } };
  const [call] = await streamText({ ...turn, ...options }).toolCalls;
  Light.parse(call.input);
});
