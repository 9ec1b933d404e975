// What a question has besides its text: images and videos, each by its content or its URL.
//
// {id, kind, name, width, height, seconds?, blob?, url?, thumb?, seen?}
// `kind` is "image" or "video"; `seen` is what the server counted, {key, frames, tokens}.

import { describeMedia } from "./api.js";
import { h } from "./dom.js";
import { blobUrl, measureImage, resized, SHRUNK_SIDE } from "./images.js";
import { strings } from "./strings.js";
import { randomId } from "./tree.js";
import { isVideo, measureVideo } from "./videos.js";

/** An image or a video from a file; the server may know formats that this browser cannot show. */
export async function mediaFromFile(file, maxImagePixels) {
  const kind = isVideo(file) ? "video" : "image";
  const name = file.name || strings.unnamed(kind);
  if (kind === "image" && !file.type.startsWith("image/")) throw new Error(strings.notMedia(name));
  const measured = kind === "video" ? await measureVideo(file) : await measureImage(file, maxImagePixels);
  return { id: randomId(), kind, name, blob: file, width: 0, height: 0, thumb: null, ...measured };
}

/** An image or a video by its URL, which the server fetches and measures. */
export async function mediaFromUrl(url, model, selection) {
  const name = decodeURIComponent(new URL(url).pathname.split("/").pop()) || url;
  const media = { id: randomId(), name, url };
  await seenByServer(media, model, selection);
  return media;
}

const asked = new Map();

/** {frames, tokens}, which the server counts once for a model and a selection of frames. It also fills in the rest. */
export function seenByServer(media, model, selection) {
  const key = JSON.stringify([media.id, model, selection]);
  if (media.seen?.key === key) return media.seen;
  if (!asked.has(key)) {
    const seen = ask(media, key, selection);
    seen.catch((error) => error.lost && asked.delete(key));
    asked.set(key, seen);
  }
  return asked.get(key);
}

async function ask(media, key, selection) {
  const { thumbnail, frames, tokens, ...measured } = await describeMedia(await mediaSource(media), selection);
  Object.assign(media, measured, { seen: { key, frames, tokens } });
  media.thumb ??= blobFromDataUri(thumbnail);
  return media.seen;
}

/** A copy of an image whose longer side has `SHRUNK_SIDE` pixels. */
export async function shrunk(image) {
  const smaller = await resized(image.blob, image, SHRUNK_SIDE);
  return mediaFromFile(new File([smaller], image.name, { type: smaller.type }));
}

/** Which frames of its videos a chat's settings ask for. */
export const frameSelection = ({ fps, max_frames, max_pixels }) => ({ fps, max_frames, max_pixels });

/** The part of a message that an image or a video is. */
export async function mediaPart(media, selection) {
  const source = { url: await mediaSource(media) };
  return media.kind === "video"
    ? { type: "video_url", video_url: source, ...selection }
    : { type: "image_url", image_url: source };
}

/** What a request names an image or a video by: its URL, or its content as a data URI. */
export async function mediaSource(media) {
  if (media.url) return media.url;
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(media.blob);
  });
}

/** A blob from a data URI, or from plain base64 of an image or a video. */
export function blobFromDataUri(uri, kind = "image") {
  const [, type = "", base64 = uri] = /^data:([^;,]*)[^,]*;base64,(.*)$/s.exec(uri) ?? [];
  const bytes = Uint8Array.from(atob(base64.trim()), (character) => character.charCodeAt(0));
  return new Blob([bytes], { type: type || (kind === "image" && sniffed(bytes)) || `${kind}/*` });
}

function sniffed([first, second]) {
  const types = {
    "137,80": "image/png",
    "255,216": "image/jpeg",
    "82,73": "image/webp",
    "71,73": "image/gif",
    "66,77": "image/bmp",
  };
  return types[`${first},${second}`];
}

/** The thumbnail, or a word where there is none. */
export function thumbnail(media) {
  if (!media?.thumb) return h("span", { class: "no-preview" }, strings.noPreview);
  const size = media.width ? { width: media.width, height: media.height } : {};
  return h("img", { src: blobUrl(media.thumb), alt: media.name, decoding: "async", ...size });
}

/** Size, duration and bytes, as far as they are known. */
export const measures = ({ width, height, seconds, blob }) =>
  [width && strings.size(width, height), seconds && strings.seconds(seconds), blob && strings.bytes(blob.size)]
    .filter(Boolean)
    .join(" · ");
