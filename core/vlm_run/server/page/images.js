// Images: read, measured, shrunk and shown in the browser.

import { remoteImage } from "./api.js";
import { h } from "./dom.js";
import { strings } from "./strings.js";
import { randomId } from "./tree.js";

const THUMBNAIL_SIDE = 512;
export const SHRUNK_SIDE = 2048;
const urls = new WeakMap();

/** The URL of a blob, made once. */
export function blobUrl(blob) {
  if (!urls.has(blob)) urls.set(blob, URL.createObjectURL(blob));
  return urls.get(blob);
}

/** An image from a file; the server may know formats that this browser cannot show. */
export async function imageFromFile(file, maxPixels = Number.POSITIVE_INFINITY) {
  const name = file.name || strings.pasted;
  if (!file.type.startsWith("image/")) throw new Error(strings.notAnImage(name));
  const image = { id: randomId(), name, blob: file, width: 0, height: 0, thumb: null };
  const size = await naturalSize(file);
  if (!size) return image;
  const small = Math.max(size.width, size.height) <= THUMBNAIL_SIDE;
  const huge = size.width * size.height > maxPixels; // refused anyway, and costly to decode
  const thumb = small ? file : huge ? null : await resized(file, size, THUMBNAIL_SIDE).catch(() => null);
  return { ...image, ...size, thumb };
}

/** An image by its URL, which the server fetches and measures. */
export async function imageFromUrl(url) {
  const { width, height, thumbnail } = await remoteImage(url);
  const name = decodeURIComponent(new URL(url).pathname.split("/").pop()) || url;
  return { id: randomId(), name, url, width, height, thumb: blobFromDataUri(thumbnail) };
}

/** A copy of an image whose longer side has `SHRUNK_SIDE` pixels. */
export async function shrunk(image) {
  const smaller = await resized(image.blob, image, SHRUNK_SIDE);
  return imageFromFile(new File([smaller], image.name, { type: smaller.type }));
}

function naturalSize(blob) {
  return new Promise((resolve) => {
    const image = new Image();
    image.onload = () => resolve({ width: image.naturalWidth, height: image.naturalHeight });
    image.onerror = () => resolve(null);
    image.src = blobUrl(blob);
  });
}

async function resized(blob, { width, height }, side) {
  const scale = side / Math.max(width, height);
  const size = {
    resizeWidth: Math.max(1, Math.round(width * scale)),
    resizeHeight: Math.max(1, Math.round(height * scale)),
  };
  const bitmap = await createImageBitmap(blob, { ...size, resizeQuality: "high" });
  const canvas = h("canvas", { width: bitmap.width, height: bitmap.height });
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  bitmap.close();
  const type = blob.type === "image/jpeg" ? "image/jpeg" : "image/webp";
  return new Promise((resolve) => canvas.toBlob(resolve, type, 0.9));
}

/** What a request names an image by: its URL, or its content as a data URI. */
export async function imageSource(image) {
  if (image.url) return image.url;
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(image.blob);
  });
}

/** A blob from a data URI, or from plain base64. */
export function blobFromDataUri(uri) {
  const [, type = "", base64 = uri] = /^data:([^;,]*)[^,]*;base64,(.*)$/s.exec(uri) ?? [];
  const bytes = Uint8Array.from(atob(base64.trim()), (character) => character.charCodeAt(0));
  return new Blob([bytes], { type: type || sniffed(bytes) });
}

function sniffed([first, second]) {
  const types = {
    "137,80": "image/png",
    "255,216": "image/jpeg",
    "82,73": "image/webp",
    "71,73": "image/gif",
    "66,77": "image/bmp",
  };
  return types[`${first},${second}`] ?? "image/*";
}

/** The thumbnail, or a word where there is none. */
export function thumbnail(image) {
  if (!image?.thumb) return h("span", { class: "no-preview" }, strings.noPreview);
  const size = image.width ? { width: image.width, height: image.height } : {};
  return h("img", { src: blobUrl(image.thumb), alt: image.name, decoding: "async", ...size });
}
