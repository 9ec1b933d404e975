// Where a question is written: text, images, videos, and what all will cost.

import { imageTokens, textTokens } from "./api.js";
import { $, h, iconButton, notify } from "./dom.js";
import { SHRUNK_SIDE } from "./images.js";
import { frameSelection, measures, mediaFromFile, seenByServer, shrunk, thumbnail } from "./media.js";
import { deleteMedia, loadMedia, saveMedia } from "./store.js";
import { strings } from "./strings.js";
import { path } from "./tree.js";
import { isVideo } from "./videos.js";

const LARGE_BYTES = 4e6;
const COUNT_AFTER_MS = 350;

/**
 * @param state what the page is showing: conversation, adapter, model, bounds()
 * @param onSend called with {text, media, replaces}: ids of images and videos, and the question that is edited
 */
export function createComposer(state, onSend) {
  const field = $("question");
  let attachments = []; // {media, tokens, frames, problem}
  let edited = null;
  let counting = null;
  let timer = 0;

  const earlier = () => {
    const shown = path(state.conversation);
    return edited ? shown.slice(0, shown.indexOf(edited)) : shown;
  };

  async function addFiles(files) {
    for (const file of files) {
      try {
        if (isVideo(file)) checkVideo(file.name, file.size);
        add(await mediaFromFile(file, state.adapter?.limits.max_image_pixels));
      } catch (error) {
        notify(error.message, { kind: "error" });
      }
    }
    field.focus();
  }

  /** Refuse a video that the server would, before it is read; once it is known what the server takes. */
  function checkVideo(name, size = 0) {
    if (!state.adapter) return;
    const { limits, takes_videos } = state.adapter;
    if (!takes_videos) throw new Error(strings.noVideos(name, state.model));
    if (!limits.max_videos) throw new Error(strings.videosOff(name));
    if (size > limits.max_video_bytes) throw new Error(strings.videoTooLarge(name, size, limits.max_video_bytes));
  }

  function add(media) {
    attachments.push({ media, tokens: null, problem: "" });
    changed();
  }

  function move(index, to) {
    if (to < 0 || to >= attachments.length) return;
    attachments.splice(to, 0, ...attachments.splice(index, 1));
    changed();
    $("attachments").children[to].querySelector("button:not([disabled])")?.focus();
  }

  function changed() {
    draw();
    field.style.height = "auto";
    field.style.height = `${field.scrollHeight}px`;
    clearTimeout(timer);
    timer = setTimeout(count, attachments.some((each) => each.tokens === null && !each.problem) ? 0 : COUNT_AFTER_MS);
  }

  function draw() {
    $("send").disabled = !field.value.trim();
    $("editing").hidden = !edited;
    $("attachments").hidden = !attachments.length;
    $("attachments").replaceChildren(...attachments.map(drawAttachment));
  }

  function drawAttachment(attachment, index) {
    const { media, tokens, frames, problem } = attachment;
    const large = media.blob && (media.blob.size > LARGE_BYTES || Math.max(media.width, media.height) > SHRUNK_SIDE);
    const counted = tokens === null ? strings.counting : strings.cost(tokens, frames);
    const cost = problem || (tokens === undefined ? strings.unknownCost : counted);
    const shrink = async () => {
      attachments[index] = { media: await shrunk(media), tokens: null, problem: "" };
      changed();
    };
    return h(
      "li",
      {
        draggable: "true",
        class: problem ? "problem" : null,
        ondragstart: (event) => event.dataTransfer.setData("text/x-attachment", index),
        ondragover: (event) => event.preventDefault(),
        ondrop: (event) => {
          const from = event.dataTransfer.getData("text/x-attachment");
          if (from !== "") move(Number(from), index);
        },
      },
      thumbnail(media),
      h("span", { class: "name", title: media.name }, media.name),
      h("span", { class: "size" }, measures(media)),
      h("span", { class: "cost" }, cost),
      h(
        "span",
        { class: "buttons" },
        iconButton("left", strings.moveEarlier(media.name), () => move(index, index - 1), { disabled: index === 0 }),
        iconButton("right", strings.moveLater(media.name), () => move(index, index + 1), {
          disabled: index === attachments.length - 1,
        }),
        large && media.width && media.kind === "image" && iconButton("shrink", strings.shrink(SHRUNK_SIDE), shrink),
        iconButton("close", strings.removeMedia(media.name), () => {
          attachments.splice(index, 1);
          changed();
          field.focus();
        }),
      ),
    );
  }

  /** Ask the server what the prompt would cost, and say what of it does not fit. */
  async function count() {
    counting?.abort();
    counting = new AbortController();
    const { signal } = counting;
    const limits = state.adapter?.limits;
    if (!limits) return;
    const shown = earlier();
    const before = await Promise.all(shown.flatMap((node) => node.media).map(loadMedia));
    const current = [...attachments];
    const all = [...before, ...current.map(({ media }) => media)];
    const costs = await Promise.all(all.map(cost));
    const text = await textTokens(state.model, textMessages(shown), signal).catch(() => null);
    if (signal.aborted) return;
    let used = text ?? 0;
    const given = { image: 0, video: 0 };
    const tokens = { image: 0, video: 0 };
    costs.forEach((each, place) => {
      const { kind } = all[place] ?? { kind: "image" };
      const most = limits[`max_${kind}s`];
      given[kind] += 1;
      tokens[kind] += each.tokens ?? 0;
      used += each.tokens ?? 0;
      const attachment = current[place - before.length];
      if (!attachment) return;
      const tooMany = most !== null && given[kind] > most && strings.tooMany(most, kind);
      const tooLong = used > limits.max_model_len && strings.doesNotFit;
      attachment.tokens = each.tokens;
      attachment.frames = each.frames;
      attachment.problem = each.problem || tooMany || tooLong || "";
    });
    draw();
    const over = used >= limits.max_model_len;
    const said = [
      strings.budget(used, limits.max_model_len),
      tokens.image && strings.budgetImages(tokens.image),
      tokens.video && strings.budgetVideos(tokens.video),
      over && strings.tooLong,
    ];
    $("budget").textContent = text === null ? "" : said.filter(Boolean).join(" · ");
    $("budget").className = over ? "problem" : "";
  }

  async function cost(media) {
    if (!media) return { tokens: undefined };
    try {
      if (media.kind === "video") {
        checkVideo(media.name, media.blob?.size);
        return await seenByServer(media, state.model, frameSelection(state.conversation.settings));
      }
      if (!media.width) await seenByServer(media, state.model, {});
      return { tokens: (await imageTokens(media, state.bounds())) ?? undefined };
    } catch (error) {
      return { tokens: undefined, problem: error.lost ? "" : error.message };
    }
  }

  function textMessages(shown) {
    const system = state.conversation.system ? [{ role: "system", content: state.conversation.system }] : [];
    const spoken = shown.filter((node) => node.text).map((node) => ({ role: node.role, content: node.text }));
    return [...system, ...spoken, { role: "user", content: field.value || " " }];
  }

  async function send() {
    const text = field.value.trim();
    if (!text || state.generation) return;
    const all = attachments.map(({ media }) => media);
    const replaces = edited;
    clear();
    for (const media of all) {
      await saveMedia(media).catch((error) => notify(strings.storeFailed(error.message), { kind: "error" }));
    }
    onSend({ text, media: all.map((each) => each.id), replaces });
  }

  function clear() {
    [attachments, edited, field.value] = [[], null, ""];
    changed();
  }

  async function edit(node) {
    edited = node;
    field.value = node.text;
    const all = await Promise.all(node.media.map(loadMedia));
    attachments = all.filter(Boolean).map((media) => ({ media, tokens: null, problem: "" }));
    changed();
    field.focus();
  }

  field.addEventListener("input", changed);
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    }
  });
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  $("cancel-edit").addEventListener("click", clear);
  $("add-file").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", async () => {
    await addFiles([...$("file").files]);
    $("file").value = "";
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    addFiles(files);
  });
  receiveDrops(addFiles);

  return {
    add,
    edit,
    clear,
    recount: changed,
    suggest: (text) => {
      field.value = text;
      changed();
      field.focus();
    },
  };
}

function receiveDrops(addFiles) {
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  let depth = 0;
  const shade = (change) => {
    depth = change === 0 ? 0 : depth + change;
    $("drop").hidden = depth <= 0;
  };
  document.addEventListener("dragenter", (event) => hasFiles(event) && shade(1));
  document.addEventListener("dragleave", (event) => hasFiles(event) && shade(-1));
  document.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    shade(0);
    addFiles([...event.dataTransfer.files]);
  });
}

/** Delete the images and videos that no version of a question mentions any more. */
export const forgetMedia = (before, after) => deleteMedia([...before].filter((id) => !after.has(id)));
