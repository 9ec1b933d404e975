// The server's endpoints.

import { strings } from "./strings.js";

const KEY = "vlm-run-key";
let askForKey = async () => null;

/** What went wrong: `lost` where the server did not answer, or stopped to. */
export class ServerError extends Error {
  constructor(message, { lost = false, status = 0 } = {}) {
    super(message);
    this.lost = lost;
    this.status = status;
  }
}

/** Set the function that asks the user for a key; it is told whether one was refused. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

async function request(path, { body, signal } = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = {
    ...(body && { "Content-Type": "application/json" }),
    ...(key && { Authorization: `Bearer ${key}` }),
  };
  let response;
  try {
    response = await fetch(path, {
      method: body ? "POST" : "GET",
      headers,
      body: body && JSON.stringify(body),
      signal,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ServerError(strings.lost, { lost: true });
  }
  if (response.status === 401) {
    const given = await askForKey(Boolean(key));
    if (given === null) throw await refusal(response);
    sessionStorage.setItem(KEY, given);
    return request(path, { body, signal });
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const { status } = response;
  let message = strings.serverSaid(status);
  try {
    const answer = await response.json();
    message = answer.error?.message ?? answer.detail?.[0]?.msg ?? message;
  } catch {
    // Not JSON: a proxy's page, perhaps. The status says more.
  }
  return new ServerError(message, { status, lost: [502, 503, 504].includes(status) });
}

const json = async (path, options) => (await request(path, options)).json();

export const models = async () => (await json("v1/models")).data.map((model) => model.id);

export const adapter = () => json("v1/adapter");

const costs = new Map();

/** Tokens of an image of a size under bounds on its area; null if the server does not know. */
export function imageTokens({ width, height }, bounds) {
  const query = new URLSearchParams({ width, height, ...bounds }).toString();
  if (!costs.has(query)) {
    const cost = json(`v1/adapter?${query}`).then((answer) => answer.explain.image_tokens);
    cost.catch(() => costs.delete(query));
    costs.set(query, cost);
  }
  return costs.get(query);
}

/** What the server finds at a URL or in a data URI: its kind, size and thumbnail; of a video its frames and tokens. */
export const describeMedia = (url, selection) => json("v1/adapter/media", { body: { url, ...selection } });

/** Tokens of messages without images and videos, as the model's chat template writes them. */
export const textTokens = async (model, messages, signal) =>
  (await json("tokenize", { body: { model, messages }, signal })).count;

/** Stream an answer: yields {text, reasoning, usage, finish}, whatever of it has come. */
export async function* streamChat(body, signal) {
  const options = { include_usage: true, continuous_usage_stats: true };
  const response = await request("v1/chat/completions", {
    body: { ...body, stream: true, stream_options: options },
    signal,
  });
  try {
    for await (const data of serverEvents(response.body)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ServerError(chunk.error.message ?? strings.serverSaid(chunk.error.code));
      const [choice] = chunk.choices;
      const delta = choice?.delta ?? {};
      yield {
        text: delta.content ?? "",
        reasoning: delta.reasoning ?? delta.reasoning_content ?? "",
        usage: chunk.usage,
        finish: choice?.finish_reason,
      };
    }
  } catch (error) {
    if (signal.aborted || error instanceof ServerError) throw error;
    throw new ServerError(strings.lost, { lost: true });
  }
  throw new ServerError(strings.lost, { lost: true }); // it ended before it was done
}

async function* serverEvents(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    const lines = (buffer + read.value).split("\n");
    buffer = lines.pop();
    for (const line of lines) if (line.startsWith("data: ")) yield line.slice(6).trim();
  }
}
