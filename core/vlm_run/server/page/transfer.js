// Chats as lines of JSON: what `/save` writes in a terminal, and `--val_dataset` reads.

import { h } from "./dom.js";
import { chatMessages } from "./generation.js";
import { blobFromDataUri, imageFromFile, imageFromUrl, imageSource } from "./images.js";
import { loadImage, saveConversation, saveImage } from "./store.js";
import { strings } from "./strings.js";
import { addNode, newConversation, path } from "./tree.js";

const TAG = "<image>";
const hasTag = (text) => /<image>|<img>/.test(text);

/** The branch that is shown, as one line; null where nothing is asked. */
export async function exportLine(conversation) {
  const nodes = path(conversation);
  const questions = nodes.filter((node) => node.role === "user");
  if (!questions.length) return null;
  const extra = Object.keys(conversation.settings ?? {}).length ? { ...requestColumns(conversation.settings) } : {};
  if (questions.some((node) => hasTag(node.text))) {
    // Text that looks like a tag stays text only in messages with parts.
    return JSON.stringify({ messages: await chatMessages(conversation, nodes), ...extra });
  }
  const answerTo = (question) => nodes.find((node) => node.parent === question.id)?.text ?? "";
  const turns = questions.map((node) => [TAG.repeat(node.images.length) + node.text, answerTo(node)]);
  const images = await Promise.all(questions.flatMap((node) => node.images).map(loadImage));
  const sources = await Promise.all(images.map(imageSource));
  const [query, response] = turns.pop();
  return JSON.stringify({
    system: conversation.system || null,
    history: turns,
    query,
    images: sources,
    response: response || null,
    ...extra,
  });
}

function requestColumns({ min_pixels, max_pixels, ...sampling }) {
  const columns = { min_pixels, max_pixels, sampling: Object.keys(sampling).length ? sampling : undefined };
  return Object.fromEntries(Object.entries(columns).filter(([, value]) => value !== undefined));
}

/** Let the user save chats as a file. */
export async function download(conversations, name) {
  const lines = [];
  for (const conversation of conversations) {
    const line = await exportLine(conversation);
    if (line) lines.push(`${line}\n`);
  }
  const url = URL.createObjectURL(new Blob(lines, { type: "application/jsonl" }));
  h("a", { href: url, download: `${name}.jsonl` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** Read files; the chats in them, and how many images could not be had. Raises at the first bad line. */
export async function importFiles(files) {
  const conversations = [];
  let missing = 0;
  for (const file of files) {
    const lines = (await file.text()).split("\n");
    for (const [index, line] of lines.entries()) {
      if (!line.trim()) continue;
      try {
        const found = await importLine(JSON.parse(line));
        missing += found.missing;
        conversations.push(found.conversation);
      } catch (error) {
        const reason = error instanceof SyntaxError ? strings.importNotJson : error.message;
        throw new Error(strings.importLine(file.name, index + 1, reason));
      }
    }
  }
  for (const conversation of conversations) await saveConversation(conversation);
  return { conversations, missing };
}

async function importLine(row) {
  const turns = row.messages ? turnsOfMessages(row.messages) : turnsOfQuery(row);
  if (!turns.length) throw new Error(strings.importNoQuestion);
  const { sampling, min_pixels, max_pixels } = row;
  const settings = requestColumns({ min_pixels, max_pixels });
  const system = row.system ?? row.messages?.find((message) => message.role === "system")?.content ?? "";
  const conversation = newConversation({
    system,
    settings: { ...sampling, ...settings },
    title: turns[0].question.slice(0, 80),
  });
  let parent = null;
  let missing = 0;
  for (const { question, answer, sources } of turns) {
    const images = [];
    for (const source of sources) {
      const image = await imageFrom(source).catch(() => null);
      if (image) images.push(image.id);
      else missing += 1;
      if (image) await saveImage(image);
    }
    parent = addNode(conversation, parent, { role: "user", text: question, images }).id;
    if (answer) parent = addNode(conversation, parent, { role: "assistant", text: answer, finish: "stop" }).id;
  }
  return { conversation, missing };
}

async function imageFrom(source) {
  if (/^https?:/.test(source)) return imageFromUrl(source);
  const blob = blobFromDataUri(source);
  return imageFromFile(new File([blob], strings.pasted, { type: blob.type }));
}

/** ms-swift's columns: tags in the texts take the images in order; without tags they belong to the last turn. */
function turnsOfQuery({ query, response, history = [], images }) {
  if (typeof query !== "string") return [];
  const sources = [images ?? []].flat();
  const pairs = [...history, [query, response]];
  const perTurn = sources.length === pairs.length;
  const tagged = pairs.some(([text]) => text.includes(TAG));
  let next = 0;
  return pairs.map(([text, answer], index) => {
    const pieces = text.split(TAG);
    const last = index === pairs.length - 1;
    const own = tagged
      ? sources.slice(next, next + pieces.length - 1)
      : perTurn
        ? [sources[index]]
        : last
          ? sources
          : [];
    next += pieces.length - 1;
    return { question: pieces.join("").trim(), answer: answer ?? "", sources: own.filter(Boolean) };
  });
}

function turnsOfMessages(messages) {
  const turns = [];
  for (const { role, content } of messages) {
    const parts = typeof content === "string" ? [{ type: "text", text: content }] : content;
    const text = parts.map((part) => part.text ?? "").join("");
    const sources = parts.map((part) => part.image_url?.url ?? part.image_url ?? part.image).filter(Boolean);
    if (role === "user") turns.push({ question: text, answer: "", sources });
    else if (role === "assistant" && turns.length) turns.at(-1).answer = text;
  }
  return turns;
}
