// One question or answer in the conversation.

import { $, h, icon, iconButton } from "./dom.js";
import { blobUrl } from "./images.js";
import { copyText, renderMarkdown } from "./markdown.js";
import { measures, thumbnail } from "./media.js";
import { loadMedia } from "./store.js";
import { strings } from "./strings.js";
import { versions } from "./tree.js";
import { player } from "./videos.js";

/**
 * The element of a node. Its `draw(streaming)` shows the node as it is by then.
 * @param actions edit, regenerate, remove, choose: what the buttons do with the node
 */
export function createTurn(conversation, node, actions) {
  const isAnswer = node.role === "assistant";
  const body = h("div", { class: "body" });
  const reasoning = h("div", { class: "body" });
  const folded = h("details", { class: "reasoning", hidden: true }, h("summary"), reasoning);
  const shown = h("div", { class: "media" });
  const fault = h("div", { class: "fault" });
  const stats = h("span", { class: "stats" });
  const footer = h("div", { class: "footer" });
  const element = h(
    "article",
    { class: `turn ${node.role}`, "aria-label": isAnswer ? actions.modelName() : strings.you, tabindex: "-1" },
    isAnswer && folded,
    shown,
    body,
    fault,
    footer,
  );
  element.nodeId = node.id;
  if (node.media.length) drawMedia(shown, node.media);

  async function drawText(into, text, streaming) {
    if (!isAnswer) into.textContent = text;
    else if (element.near || streaming) await renderMarkdown(into, text, !streaming).catch(() => into.append(text));
    else if (!into.childNodes.length) into.textContent = text; // until it is scrolled near
  }

  element.draw = async (streaming = false) => {
    element.streaming = streaming;
    element.setAttribute("aria-busy", streaming);
    folded.hidden = !node.reasoning;
    folded.firstChild.textContent = streaming && !node.text ? strings.thinking : strings.reasoning;
    body.classList.toggle("waiting", streaming && !node.text && !node.reasoning);
    fault.replaceChildren(...drawFault(node, actions, streaming));
    stats.textContent = streaming ? "" : statsOf(node);
    footer.replaceChildren(
      ...(streaming ? [] : [drawVersions(conversation, node, actions), ...buttons(), stats].filter(Boolean)),
    );
    await Promise.all([
      drawText(body, node.text, streaming),
      node.reasoning && drawText(reasoning, node.reasoning, streaming),
    ]);
  };
  element.drawNear = () => {
    if (element.near) return;
    element.near = true;
    if (isAnswer && !element.streaming) element.draw();
  };

  const buttons = () => [
    iconButton("copy", strings.copy, () => copyText(node.text)),
    isAnswer && iconButton("retry", strings.regenerate, () => actions.regenerate(node)),
    !isAnswer && iconButton("edit", strings.edit, () => actions.edit(node)),
    !isAnswer && iconButton("trash", strings.deleteTurn, () => actions.remove(node)),
  ];
  element.draw();
  return element;
}

function drawVersions(conversation, node, actions) {
  const all = versions(conversation, node.parent);
  if (all.length < 2) return null;
  const index = all.indexOf(node);
  const step = (by) => () => actions.choose(all[index + by]);
  return h(
    "span",
    { class: "versions" },
    iconButton("left", strings.previous, step(-1), { disabled: index === 0 }),
    strings.version(index + 1, all.length),
    iconButton("right", strings.next, step(1), { disabled: index === all.length - 1 }),
  );
}

function drawFault(node, actions, streaming) {
  if (!node.error || streaming) return [];
  return [
    h("p", { role: "alert" }, node.error),
    h("button", { type: "button", onclick: () => actions.regenerate(node) }, icon("retry"), strings.retry),
  ];
}

function drawMedia(into, ids) {
  ids.forEach(async (id) => {
    const frame = h("button", { type: "button", class: "picture" });
    into.append(frame);
    const media = await loadMedia(id);
    if (!media) return frame.append(strings.noPreview);
    const isVideo = media.kind === "video";
    frame.setAttribute("aria-label", isVideo ? strings.playVideo(media.name) : strings.openImage(media.name));
    frame.addEventListener("click", () => openMedia(media));
    frame.append(thumbnail(media));
    if (isVideo) frame.append(h("span", { class: "play" }, icon("play"), measures({ seconds: media.seconds })));
  });
}

function openMedia(media) {
  const close = () => $("lightbox").close();
  const picture = media.kind === "video" ? media.thumb : (media.blob ?? media.thumb);
  const still = picture ? h("img", { src: blobUrl(picture), alt: media.name }) : "";
  const plays = media.kind === "video" && media.blob;
  const onclick = (event) => event.target.tagName !== "VIDEO" && close();
  const dialog = h(
    "dialog",
    { id: "lightbox", "aria-label": media.name, onclose: () => dialog.remove(), onclick },
    plays ? player(media, still) : still,
    h("p", {}, [media.name, measures(media)].filter(Boolean).join(" · "), iconButton("close", strings.close, close)),
  );
  document.body.append(dialog);
  dialog.showModal();
}

function statsOf({ stats, finish }) {
  const ended = { length: strings.cutOff, stopped: strings.stopped }[finish];
  if (!stats) return ended ?? "";
  const seconds = stats.seconds - stats.first;
  const rate = seconds > 0.05 && (stats.completion - 1) / seconds; // fewer come in one piece
  return [
    strings.promptTokens(stats.prompt),
    strings.answerTokens(stats.completion),
    strings.firstToken(stats.first),
    rate && strings.speed(rate),
    ended,
  ]
    .filter(Boolean)
    .join(" · ");
}
