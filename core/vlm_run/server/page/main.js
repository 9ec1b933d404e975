// The page: what it shows, and what happens when the user does something.

import { adapter, models, onKeyNeeded } from "./api.js";
import { createComposer, forgetMedia } from "./composer.js";
import { askForKey, askForSettings, askForUrl, confirmDelete } from "./dialogs.js";
import { $, fillPage, h, notify } from "./dom.js";
import { generate } from "./generation.js";
import { loadMarkdown } from "./markdown.js";
import { frameSelection, mediaFromUrl } from "./media.js";
import { createSidebar } from "./sidebar.js";
import { allConversations, deleteConversation, deleteMedia, openStore, saveConversation } from "./store.js";
import { offer, strings } from "./strings.js";
import { createThread } from "./thread.js";
import { download, importFiles } from "./transfer.js";
import { addNode, mediaIds, newConversation, path, removeAnswer, removeTurn, show } from "./tree.js";
import { VIDEO_SUFFIXES } from "./videos.js";

const SETTINGS = "vlm-run-settings";
const RETRY_MS = 2000;

const state = {
  conversations: [],
  conversation: newConversation({ settings: JSON.parse(localStorage.getItem(SETTINGS) ?? '{"temperature":0}') }),
  generation: null, // {conversation, node, stop}
  adapter: null,
  model: "",
  bounds: () => {
    const { min_pixels, max_pixels } = state.conversation.settings;
    return { ...(min_pixels && { min_pixels }), ...(max_pixels && { max_pixels }) };
  },
};

fillPage();
const composer = createComposer(state, ({ text, media, replaces }) => {
  const { conversation } = state;
  const parent = replaces ? replaces.parent : (path(conversation).at(-1)?.id ?? null);
  conversation.title ||= text.slice(0, 80);
  answer(addNode(conversation, parent, { role: "user", text, media }));
});
const thread = createThread(state, {
  modelName: () => state.model,
  edit: (node) => composer.edit(node),
  regenerate: (node) => {
    const question = state.conversation.nodes[node.parent];
    if (state.generation) return;
    if (node.error && !node.text) removeAnswer(state.conversation, node.id);
    answer(question);
  },
  remove: (node) => changeNodes(() => removeTurn(state.conversation, node.id)),
  choose: (node) => changeNodes(() => show(state.conversation, node.id)),
});
const sidebar = createSidebar(state, {
  open: openConversation,
  remove: async (conversation) => {
    if (!(await confirmDelete(conversation.title || strings.untitled))) return;
    if (state.generation?.conversation === conversation) state.generation.stop();
    await deleteConversation(conversation.id);
    await deleteMedia(mediaIds(conversation));
    state.conversations = state.conversations.filter((each) => each !== conversation);
    if (conversation === state.conversation) startConversation();
    else sidebar.draw();
  },
});

/** Have a question answered: streamed into a new version of its answer. */
async function answer(question) {
  const { conversation } = state;
  const node = addNode(conversation, question.id, { role: "assistant" });
  const controller = new AbortController();
  state.generation = { conversation, node, stop: () => controller.abort() };
  if (!state.conversations.includes(conversation)) state.conversations.unshift(conversation);
  drawBusy();
  sidebar.draw();
  thread.show();
  thread.update(node, true);
  thread.pin();
  await save(conversation);
  const request = { model: state.model, settings: conversation.settings, signal: controller.signal };
  await generate(conversation, node, request, (isTime) => {
    thread.update(node, true);
    if (isTime) save(conversation);
  });
  state.generation = null;
  drawBusy();
  thread.update(node, false);
  composer.recount();
  await save(conversation);
  if (node.error === strings.lost) connect();
}

async function save(conversation) {
  conversation.updated = Date.now();
  try {
    await saveConversation(conversation);
  } catch (error) {
    notify(strings.storeFailed(error.message), { kind: "error" });
  }
}

async function changeNodes(change) {
  if (state.generation?.conversation === state.conversation) return;
  const before = mediaIds(state.conversation);
  change();
  thread.show({ fresh: true });
  composer.recount();
  await save(state.conversation);
  await forgetMedia(before, mediaIds(state.conversation));
}

function openConversation(conversation) {
  state.conversation = conversation;
  composer.clear();
  thread.show();
  sidebar.draw();
}

function startConversation() {
  openConversation(newConversation({ settings: { ...state.conversation.settings } }));
  sidebar.close();
  $("question").focus();
}

function drawBusy() {
  const busy = Boolean(state.generation);
  $("stop").hidden = !busy;
  $("send").hidden = busy;
}

function drawWelcome() {
  const tokens = state.adapter?.explain.image_tokens;
  const chips = strings.suggestions.map((text) =>
    h("button", { type: "button", onclick: () => composer.suggest(text) }, text),
  );
  $("welcome").replaceChildren(
    h("h2", {}, strings.welcome),
    tokens && h("p", { class: "cost" }, strings.welcomeCost(state.model, tokens)),
    h("p", {}, strings.welcomeHint),
    h("div", { class: "chips" }, ...chips),
    h("p", { class: "quiet" }, strings.welcomePrivate),
  );
}

/** Offer what the model takes. */
function offerMedia({ max_images, max_videos }) {
  const [image, video] = [max_images !== 0, max_videos !== 0];
  offer(image, video);
  fillPage();
  $("file").accept = [image && "image/*", video && ["video/*", ...VIDEO_SUFFIXES]].filter(Boolean).flat().join();
}

/** Ask the server what it serves, until it answers. */
async function connect() {
  for (;;) {
    try {
      const names = await models();
      state.adapter = await adapter();
      if (!names.includes(state.model)) [state.model] = names;
      $("models").replaceChildren(...names.map((name) => h("option", { value: name }, name)));
      $("models").hidden = names.length < 2;
      $("models").value = state.model;
      $("model").textContent = state.model;
      $("model").hidden = names.length > 1;
      offerMedia(state.adapter.limits);
      if ($("notice").className === "offline") notify("");
      drawWelcome();
      composer.recount();
      return;
    } catch (error) {
      if (!error.lost) return notify(error.message, { kind: "error", seconds: 0 });
      notify(strings.offline, { kind: "offline", seconds: 0 });
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

$("new-chat").addEventListener("click", startConversation);
$("stop").addEventListener("click", () => state.generation?.stop());
$("models").addEventListener("change", () => {
  state.model = $("models").value;
  composer.recount();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !document.querySelector("dialog")) state.generation?.stop();
});
$("add-url").addEventListener("click", async () => {
  const url = await askForUrl();
  if (!url) return;
  notify(strings.loadingUrl, { seconds: 0 });
  try {
    composer.add(await mediaFromUrl(url, state.model, frameSelection(state.conversation.settings)));
    notify("");
  } catch (error) {
    notify(error.message, { kind: "error", seconds: 0 });
  }
});
$("open-settings").addEventListener("click", async () => {
  const { conversation } = state;
  const chosen = await askForSettings(conversation.system, conversation.settings, state.adapter?.limits ?? {});
  if (!chosen) return;
  Object.assign(conversation, chosen);
  localStorage.setItem(SETTINGS, JSON.stringify(chosen.settings));
  composer.recount();
  if (state.conversations.includes(conversation)) await save(conversation);
});
$("export").addEventListener("click", () => download([state.conversation], "chat"));
$("export-all").addEventListener("click", () => download(state.conversations, "chats"));
$("import").addEventListener("click", () => $("import-file").click());
$("import-file").addEventListener("change", async () => {
  try {
    const { conversations, missing } = await importFiles([...$("import-file").files]);
    state.conversations.unshift(...conversations);
    if (conversations.length) openConversation(conversations[0]);
    notify(
      [strings.imported(conversations.length), missing && strings.importMissing(missing)].filter(Boolean).join(" "),
    );
  } catch (error) {
    notify(error.message, { kind: "error", seconds: 0 });
  }
  $("import-file").value = "";
});

onKeyNeeded(askForKey);
drawWelcome();
if (!(await openStore())) notify(strings.noStore, { seconds: 0 });
state.conversations = await allConversations();
for (const conversation of state.conversations) {
  for (const node of Object.values(conversation.nodes)) {
    // The page was closed while it was being answered.
    if (node.role === "assistant" && !node.finish) Object.assign(node, { finish: "error", error: strings.interrupted });
  }
}
thread.show();
sidebar.draw();
$("question").focus();
await connect();
loadMarkdown();
