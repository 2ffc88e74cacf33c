// OpenAI's client for JavaScript.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const client = new OpenAI({ baseURL: `${process.env.CLIENTS_URL}/v1`, apiKey: "none", maxRetries: 0 });
const data = readFileSync(`${process.env.CLIENTS_CLIPS}/dog.wav`).toString("base64");
const heard = { type: "input_audio", input_audio: { data, format: "wav" } };
const messages = [{ role: "user", content: [heard, { type: "text", text: "What is that sound?" }] }];
const turn = { model: "nano", temperature: 0, max_completion_tokens: 300 };
const Sound = z.object({ kind: z.enum(["dog", "cat", "rain"]), loud: z.boolean() });
const Light = z.object({ room: z.enum(["kitchen", "bath"]), on: z.boolean() });

test("a stream with usage", async () => {
  const options = { stream: true, stream_options: { include_usage: true } };
  let text = "", usage = null;
  for await (const chunk of await client.chat.completions.create({ ...turn, messages, ...options })) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.match(text, /dog/i);
  assert.ok(usage.prompt_tokens_details.audio_tokens > 0);
});

test("an answer parsed", async () => {
  const response_format = zodResponseFormat(Sound, "sound");
  const answer = await client.chat.completions.parse({ ...turn, messages, response_format });
  Sound.parse(answer.choices[0].message.parsed);
});

test("a tool run", async () => {
  const asked = [];
  const tool = zodFunction({ name: "set_light", parameters: Light, function: (light) => (asked.push(light), "done") });
  const options = { tools: [tool], tool_choice: { type: "function", function: { name: "set_light" } } };
  const runner = client.chat.completions.runTools({ ...turn, messages, ...options });
  await runner.done();
  assert.ok(asked.length > 0);
  asked.forEach((light) => Light.parse(light));
});

test("tools streamed", async () => {
  const tools = [zodFunction({ name: "set_light", parameters: Light })];
  const options = { tools, tool_choice: "required", parallel_tool_calls: false };
  const answer = await client.chat.completions.stream({ ...turn, messages, ...options }).finalChatCompletion();
  const [call] = answer.choices[0].message.tool_calls;
  Light.parse(call.function.parsed_arguments);
  assert.equal(answer.choices[0].finish_reason, "tool_calls");
});

test("a response parsed", async () => {
  const input = [{ role: "user", content: [heard, { type: "input_text", text: "What is that sound?" }] }];
  const options = { model: "nano", temperature: 0, input, text: { format: zodTextFormat(Sound, "sound") } };
  Sound.parse((await client.responses.parse(options)).output_parsed);
  Sound.parse((await client.responses.stream(options).finalResponse()).output_parsed);
});
