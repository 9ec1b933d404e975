// Images: measured and shrunk by the browser.

import { h } from "./dom.js";

export const THUMBNAIL_SIDE = 512;
export const SHRUNK_SIDE = 2048;
const urls = new WeakMap();

/** The URL of a blob, made once. */
export function blobUrl(blob) {
  if (!urls.has(blob)) urls.set(blob, URL.createObjectURL(blob));
  return urls.get(blob);
}

/** {width, height, thumb} of an image; null where this browser cannot show it. */
export async function measureImage(file, maxPixels = Number.POSITIVE_INFINITY) {
  const size = await naturalSize(file);
  if (!size) return null;
  const small = Math.max(size.width, size.height) <= THUMBNAIL_SIDE;
  const huge = size.width * size.height > maxPixels; // refused anyway, and costly to decode
  const thumb = small ? file : huge ? null : await resized(file, size, THUMBNAIL_SIDE).catch(() => null);
  return { ...size, thumb };
}

function naturalSize(blob) {
  return new Promise((resolve) => {
    const image = new Image();
    image.onload = () => resolve({ width: image.naturalWidth, height: image.naturalHeight });
    image.onerror = () => resolve(null);
    image.src = blobUrl(blob);
  });
}

/** A copy of an image's blob, or of the frame that a video shows, whose longer side has `side` pixels. */
export async function resized(source, { width, height }, side) {
  const scale = side / Math.max(width, height);
  const size = {
    resizeWidth: Math.max(1, Math.round(width * scale)),
    resizeHeight: Math.max(1, Math.round(height * scale)),
  };
  const bitmap = await createImageBitmap(source, { ...size, resizeQuality: "high" });
  const canvas = h("canvas", { width: bitmap.width, height: bitmap.height });
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  bitmap.close();
  const type = source.type === "image/jpeg" ? "image/jpeg" : "image/webp";
  return new Promise((resolve) => canvas.toBlob(resolve, type, 0.9));
}
