// Where a question is written: text, images, and what both will cost.

import { imageTokens, textTokens } from "./api.js";
import { $, h, iconButton, notify } from "./dom.js";
import { imageFromFile, SHRUNK_SIDE, shrunk, thumbnail } from "./images.js";
import { deleteImages, loadImage, saveImage } from "./store.js";
import { strings } from "./strings.js";
import { path } from "./tree.js";

const LARGE_BYTES = 4e6;
const COUNT_AFTER_MS = 350;

/**
 * @param state what the page is showing: conversation, adapter, model, bounds()
 * @param onSend called with {text, images, replaces}: image ids, and the question that is edited
 */
export function createComposer(state, onSend) {
  const field = $("question");
  let attachments = []; // {image, tokens, problem}
  let edited = null;
  let counting = null;
  let timer = 0;

  const earlier = () => {
    const shown = path(state.conversation);
    return edited ? shown.slice(0, shown.indexOf(edited)) : shown;
  };

  async function addFiles(files) {
    const maxPixels = state.adapter?.limits.max_image_pixels;
    for (const file of files) {
      try {
        add(await imageFromFile(file, maxPixels));
      } catch (error) {
        notify(error.message, { kind: "error" });
      }
    }
    field.focus();
  }

  function add(image) {
    attachments.push({ image, tokens: null, problem: "" });
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
    const { image, tokens, problem } = attachment;
    const large = image.blob && (image.blob.size > LARGE_BYTES || Math.max(image.width, image.height) > SHRUNK_SIDE);
    const cost =
      problem ||
      (tokens === undefined ? strings.unknownCost : tokens === null ? strings.counting : strings.tokens(tokens));
    const size = [image.width && strings.size(image.width, image.height), image.blob && strings.bytes(image.blob.size)];
    const shrink = async () => {
      attachments[index] = { image: await shrunk(image), tokens: null, problem: "" };
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
      thumbnail(image),
      h("span", { class: "name", title: image.name }, image.name),
      h("span", { class: "size" }, size.filter(Boolean).join(" · ")),
      h("span", { class: "cost" }, cost),
      h(
        "span",
        { class: "buttons" },
        iconButton("left", strings.moveEarlier(image.name), () => move(index, index - 1), { disabled: index === 0 }),
        iconButton("right", strings.moveLater(image.name), () => move(index, index + 1), {
          disabled: index === attachments.length - 1,
        }),
        large && image.width && iconButton("shrink", strings.shrink(SHRUNK_SIDE), shrink),
        iconButton("close", strings.removeImage(image.name), () => {
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
    const before = await Promise.all(shown.flatMap((node) => node.images).map(loadImage));
    const tokens = await Promise.all([...before, ...attachments.map(({ image }) => image)].map((image) => cost(image)));
    const text = await textTokens(state.model, textMessages(shown), signal).catch(() => null);
    if (signal.aborted) return;
    let used = text ?? 0;
    tokens.forEach((each, place) => {
      used += each.tokens ?? 0;
      const attachment = attachments[place - before.length];
      if (!attachment) return;
      const tooMany = limits.max_images !== null && place >= limits.max_images;
      const tooLong = used > limits.max_model_len;
      attachment.tokens = each.tokens;
      attachment.problem =
        each.problem || (tooMany && strings.tooManyImages(limits.max_images)) || (tooLong && strings.doesNotFit) || "";
    });
    draw();
    const inImages = tokens.reduce((sum, each) => sum + (each.tokens ?? 0), 0);
    const over = used >= limits.max_model_len;
    const said = [
      strings.budget(used, limits.max_model_len),
      inImages && strings.budgetImages(inImages),
      over && strings.tooLong,
    ];
    $("budget").textContent = text === null ? "" : said.filter(Boolean).join(" · ");
    $("budget").className = over ? "problem" : "";
  }

  async function cost(image) {
    if (!image?.width) return { tokens: undefined };
    try {
      return { tokens: (await imageTokens(image, state.bounds())) ?? undefined };
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
    const images = attachments.map(({ image }) => image);
    const replaces = edited;
    clear();
    for (const image of images) {
      await saveImage(image).catch((error) => notify(strings.storeFailed(error.message), { kind: "error" }));
    }
    onSend({ text, images: images.map((image) => image.id), replaces });
  }

  function clear() {
    [attachments, edited, field.value] = [[], null, ""];
    changed();
  }

  async function edit(node) {
    edited = node;
    field.value = node.text;
    const images = await Promise.all(node.images.map(loadImage));
    attachments = images.filter(Boolean).map((image) => ({ image, tokens: null, problem: "" }));
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

/** Delete the images that no version of a question mentions any more. */
export const forgetImages = (before, after) => deleteImages([...before].filter((id) => !after.has(id)));
