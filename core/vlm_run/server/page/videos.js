// Videos: recognised, measured and shown by the browser's own decoder.

import { h } from "./dom.js";
import { blobUrl, resized, THUMBNAIL_SIDE } from "./images.js";

/** What a file input may offer besides `video/*`: types that browsers do not know on every system. */
export const VIDEO_SUFFIXES = [".mkv", ".avi", ".flv", ".ts", ".mpg", ".ogv"];
const DECODE_MS = 10_000;
const SHOWN_SECONDS = 1; // many videos begin in black

export const isVideo = ({ type, name }) =>
  type ? type.startsWith("video/") : VIDEO_SUFFIXES.some((suffix) => name.toLowerCase().endsWith(suffix));

/** {width, height, seconds, thumb} of a video; null where this browser cannot decode it. */
export async function measureVideo(file) {
  const video = h("video", { preload: "auto" });
  try {
    video.src = blobUrl(file);
    await happens(video, "loadeddata");
    const { videoWidth: width, videoHeight: height, duration } = video;
    if (!width) return null; // only its sound
    video.currentTime = Math.min(SHOWN_SECONDS, duration / 2);
    await happens(video, "seeked");
    const thumb = await resized(video, { width, height }, Math.min(THUMBNAIL_SIDE, Math.max(width, height)));
    return { width, height, seconds: Number.isFinite(duration) ? duration : 0, thumb };
  } catch {
    return null;
  } finally {
    video.removeAttribute("src");
    video.load(); // lets go of the decoder
  }
}

const happens = (video, event) =>
  new Promise((resolve, reject) => {
    video.addEventListener(event, resolve, { once: true });
    video.addEventListener("error", reject, { once: true });
    setTimeout(reject, DECODE_MS);
  });

/** A video as a player; `without` takes its place where the browser cannot play it. */
export function player({ blob, name }, without) {
  const element = h("video", { src: blobUrl(blob), controls: true, autoplay: true, "aria-label": name });
  element.addEventListener("error", () => element.replaceWith(without));
  return element;
}
