// One answer: asked, streamed, timed, and what went wrong with it.

import { streamChat } from "./api.js";
import { frameSelection, mediaPart } from "./media.js";
import { loadMedia } from "./store.js";
import { path } from "./tree.js";

const SAVE_EVERY_MS = 1000;

/**
 * Stream an answer into `node`.
 * @param request {model, settings, signal}
 * @param onChange called after each part, and with true when it is time to save
 */
export async function generate(conversation, node, request, onChange) {
  const started = performance.now();
  let content = "";
  let reasoning = "";
  let first = null;
  let saved = started;
  try {
    const messages = await chatMessages(conversation, path(conversation, node.parent));
    const { fps, max_frames, ...sampling } = request.settings; // the parts of videos have these
    const body = { model: request.model, messages, ...sampling };
    for await (const part of streamChat(body, request.signal)) {
      content += part.text;
      reasoning += part.reasoning;
      Object.assign(node, reasoning ? { reasoning, text: content } : splitReasoning(content));
      const now = performance.now();
      if (part.text || part.reasoning) first ??= now;
      if (part.finish) node.finish = part.finish;
      if (part.usage && first !== null) node.stats = statsAt(part.usage, started, first, now);
      const save = now - saved > SAVE_EVERY_MS;
      if (save) saved = now;
      onChange(save);
    }
    node.finish ??= "stop";
  } catch (error) {
    node.finish = request.signal.aborted ? "stopped" : "error";
    if (!request.signal.aborted) node.error = error.message;
  }
}

function statsAt(usage, started, first, now) {
  return {
    prompt: usage.prompt_tokens,
    completion: usage.completion_tokens,
    first: (first - started) / 1000,
    seconds: (now - started) / 1000,
  };
}

/** Reasoning that a model writes into its answer, and that no parser of the server took out. */
function splitReasoning(content) {
  const [, reasoning, text] = /^\s*<think>([\s\S]*?)(?:<\/think>\s*([\s\S]*))?$/.exec(content) ?? [];
  return reasoning === undefined ? { text: content.trimStart() } : { reasoning: reasoning.trim(), text: text ?? "" };
}

/** Messages in OpenAI's form: the images and videos of a question stand before its text, in their order. */
export async function chatMessages(conversation, nodes) {
  const selection = frameSelection(conversation.settings ?? {});
  const messages = conversation.system ? [{ role: "system", content: conversation.system }] : [];
  for (const node of nodes) {
    if (node.role === "assistant") {
      if (node.text) messages.push({ role: "assistant", content: node.text });
      continue;
    }
    const media = (await Promise.all(node.media.map(loadMedia))).filter(Boolean);
    const parts = await Promise.all(media.map((each) => mediaPart(each, selection)));
    messages.push({ role: "user", content: [...parts, { type: "text", text: node.text }] });
  }
  return messages;
}
