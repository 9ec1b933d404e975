// Chats as lines of JSON: what `/save` writes in a terminal, and `--val_dataset` reads.

import { h } from "./dom.js";
import { chatMessages } from "./generation.js";
import { blobFromDataUri, mediaFromFile, mediaFromUrl, mediaSource } from "./media.js";
import { loadMedia, saveConversation, saveMedia } from "./store.js";
import { strings } from "./strings.js";
import { addNode, newConversation, path } from "./tree.js";

const TAG = /<(image|video)>/g;
const KINDS = ["video", "image"]; // without tags, the videos of a turn stand before its images
const hasTag = (text) => /<(image|img|video)>/.test(text);

/** The branch that is shown, as one line; null where nothing is asked. */
export async function exportLine(conversation) {
  const nodes = path(conversation);
  const questions = nodes.filter((node) => node.role === "user");
  if (!questions.length) return null;
  const media = await Promise.all(questions.flatMap((node) => node.media).map(loadMedia));
  const sources = async (kind) => Promise.all(media.filter((each) => each?.kind === kind).map(mediaSource));
  const videos = await sources("video");
  const extra = requestColumns(conversation.settings, videos.length > 0);
  if (questions.some((node) => hasTag(node.text))) {
    // Text that looks like a tag stays text only in messages with parts.
    return JSON.stringify({ messages: await chatMessages(conversation, nodes), ...extra });
  }
  const answerTo = (question) => nodes.find((node) => node.parent === question.id)?.text ?? "";
  const kinds = new Map(media.filter(Boolean).map((each) => [each.id, each.kind]));
  const tags = (ids) => ids.map((id) => (kinds.has(id) ? `<${kinds.get(id)}>` : "")).join("");
  const turns = questions.map((node) => [tags(node.media) + node.text, answerTo(node)]);
  const [query, response] = turns.pop();
  return JSON.stringify({
    system: conversation.system || null,
    history: turns,
    query,
    images: await sources("image"),
    videos: videos.length ? videos : undefined,
    response: response || null,
    ...extra,
  });
}

/** Without videos, a row may not say which of their frames it wants. */
function requestColumns({ min_pixels, max_pixels, fps, max_frames, ...sampling } = {}, hasVideos = true) {
  const frames = hasVideos ? { fps, max_frames } : {};
  const columns = { min_pixels, max_pixels, ...frames, sampling: Object.keys(sampling).length ? sampling : undefined };
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

/** Read files; the chats in them, and how many images and videos could not be had. Raises at the first bad line. */
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
  const { sampling, min_pixels, max_pixels, fps, max_frames } = row;
  const settings = requestColumns({ min_pixels, max_pixels, fps, max_frames });
  const system = row.system ?? row.messages?.find((message) => message.role === "system")?.content ?? "";
  const conversation = newConversation({
    system,
    settings: { ...sampling, ...settings },
    title: turns[0].question.slice(0, 80),
  });
  let parent = null;
  let missing = 0;
  for (const { question, answer, sources } of turns) {
    const media = [];
    for (const source of sources) {
      const found = await mediaFrom(source).catch(() => null);
      if (found) media.push(found.id);
      else missing += 1;
      if (found) await saveMedia(found);
    }
    parent = addNode(conversation, parent, { role: "user", text: question, media }).id;
    if (answer) parent = addNode(conversation, parent, { role: "assistant", text: answer, finish: "stop" }).id;
  }
  return { conversation, missing };
}

async function mediaFrom({ kind, source }) {
  if (/^https?:/.test(source)) return mediaFromUrl(source, "", {});
  const blob = blobFromDataUri(source, kind);
  return mediaFromFile(new File([blob], strings.unnamed(kind), { type: blob.type }));
}

/** ms-swift's columns: tags in the texts take what is given in order; without tags it belongs to the last turn. */
function turnsOfQuery({ query, response, history = [], images, videos }) {
  if (typeof query !== "string") return [];
  const pairs = [...history, [query, response]];
  const given = { image: [images ?? []].flat(), video: [videos ?? []].flat() };
  const untagged = KINDS.filter((kind) => !pairs.some(([text]) => text.includes(`<${kind}>`)));
  const perTurn = untagged.filter((kind) => given[kind].length === pairs.length);
  return pairs.map(([text, answer], index) => {
    const sources = [];
    const take = (kind, most = 1) => sources.push(...given[kind].splice(0, most).map((source) => ({ kind, source })));
    for (const kind of untagged) {
      if (perTurn.includes(kind)) take(kind);
      else if (index === pairs.length - 1) take(kind, given[kind].length);
    }
    // Where nothing is given, a tag is text.
    const question = text.replaceAll(TAG, (tag, kind) => (given[kind].length && take(kind) ? "" : tag)).trim();
    return { question, answer: answer ?? "", sources: sources.filter(({ source }) => source) };
  });
}

function turnsOfMessages(messages) {
  const turns = [];
  for (const { role, content } of messages) {
    const parts = typeof content === "string" ? [{ type: "text", text: content }] : content;
    const text = parts.map((part) => part.text ?? "").join("");
    const named = parts.flatMap((part) =>
      KINDS.map((kind) => ({ kind, source: part[`${kind}_url`]?.url ?? part[`${kind}_url`] ?? part[kind] })),
    );
    const sources = named.filter(({ source }) => source);
    if (role === "user") turns.push({ question: text, answer: "", sources });
    else if (role === "assistant" && turns.length) turns.at(-1).answer = text;
  }
  return turns;
}
