// Turn the effort dial with the openai package for Node.
// Usage: node openai-node.mjs [http://127.0.0.1:8080/v1]
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: process.argv[2] ?? process.env.BREVITY_URL ?? "http://127.0.0.1:8080/v1",
  apiKey: process.env.OPENAI_API_KEY ?? "none",
});

for (const effort of ["low", "high"]) {
  const completion = await client.chat.completions.create({
    model: "brevity-mini",
    messages: [{ role: "user", content: "What is 37 * 9 - 88?" }],
    reasoning_effort: effort,
    seed: 7,
  });
  const { message } = completion.choices[0];
  console.log(`== ${effort}: ${completion.model}`);
  console.log(`(thinking) ${message.reasoning_content}`);
  console.log(`(answer) ${message.content}`);
  console.log(`${completion.usage.completion_tokens} tokens\n`);
}

// The Responses API has the same dial; its stream brings thoughts and answer as items, one after the other.
const stream = await client.responses.create({
  model: "brevity-mini",
  input: "What is 37 * 9 - 88?",
  reasoning: { effort: "low" },
  seed: 7,
  stream: true,
});
for await (const event of stream) {
  if (event.type === "response.output_item.added") process.stdout.write(`\n(${event.item.type}) `);
  if (event.type === "response.reasoning_text.delta") process.stdout.write(event.delta);
  if (event.type === "response.output_text.delta") process.stdout.write(event.delta);
  if (event.type === "response.completed") console.log(`\n${event.response.usage.output_tokens} tokens\n`);
}

// What cannot be done is said with the field that is to blame.
try {
  await client.chat.completions.create({
    model: "brevity-mini",
    messages: [{ role: "user", content: "Hello" }],
    reasoning_effort: "turbo",
  });
  throw new Error("an unknown effort was accepted");
} catch (error) {
  if (!(error instanceof OpenAI.BadRequestError) || error.param !== "reasoning_effort") throw error;
  console.log(`an unknown effort is refused: ${error.message}`);
}
