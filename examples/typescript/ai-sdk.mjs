// Turn the effort dial with the Vercel AI SDK; thoughts and answer arrive as separate parts.
// Usage: node ai-sdk.mjs [http://127.0.0.1:8080/v1]
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { streamText } from "ai";

const brevity = createOpenAICompatible({
  name: "brevity",
  baseURL: process.argv[2] ?? process.env.BREVITY_URL ?? "http://127.0.0.1:8080/v1",
  apiKey: process.env.OPENAI_API_KEY ?? "none",
  includeUsage: true,
});

for (const reasoningEffort of ["low", "high"]) {
  console.log(`== ${reasoningEffort}`);
  const result = streamText({
    model: brevity("brevity-mini"),
    prompt: "What is 37 * 9 - 88?",
    seed: 7,
    providerOptions: { brevity: { reasoningEffort } },
    onError: ({ error }) => {
      throw error;
    },
  });
  const seen = new Set();
  for await (const part of result.fullStream) {
    seen.add(part.type);
    if (part.type === "reasoning-start") process.stdout.write("(thinking) ");
    if (part.type === "reasoning-delta") process.stdout.write(part.text);
    if (part.type === "text-start") process.stdout.write("\n(answer) ");
    if (part.type === "text-delta") process.stdout.write(part.text);
  }
  const usage = await result.usage;
  console.log(`\n${usage.outputTokens} tokens\n`);
  for (const type of ["reasoning-delta", "text-delta", "finish"]) {
    if (!seen.has(type)) throw new Error(`the stream had no ${type}`);
  }
}
