// Elements, without innerHTML.

import { strings } from "./strings.js";

const SVG = "http://www.w3.org/2000/svg";
const ICONS = {
  plus: "M12 5v14M5 12h14",
  close: "M6 6l12 12M18 6L6 18",
  menu: "M4 7h16M4 12h16M4 17h16",
  sliders: "M4 7h10M18 7h2M4 17h2M10 17h10M14 4.5v5M6 14.5v5",
  image: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.5 9.5h.01",
  link: "M10 14a4 4 0 0 0 6 0l3-3a4 4 0 0 0-6-6l-1 1M14 10a4 4 0 0 0-6 0l-3 3a4 4 0 0 0 6 6l1-1",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
  play: "M8 5l11 7-11 7z",
  down: "M12 5v14M6 13l6 6 6-6",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  upload: "M12 16V5M7 9l5-5 5 5M5 20h14",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  retry: "M20 12a8 8 0 1 1-2.5-5.8M20 3v4h-4",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  left: "M14 6l-6 6 6 6",
  right: "M10 6l6 6-6 6",
  shrink: "M9 4v5H4M15 20v-5h5M4 4l5 5M20 20l-5-5",
};

export const $ = (id) => document.getElementById(id);

/** An element with attributes (`on…` are listeners, null and false are left out) and children. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

export const iconButton = (name, label, onclick, attributes = {}) =>
  h("button", { type: "button", class: "icon", "aria-label": label, title: label, onclick, ...attributes }, icon(name));

/** Give the elements of index.html their icons and words; again where the words have changed. */
export function fillPage() {
  for (const element of document.querySelectorAll("[data-icon], [data-text]")) {
    const { icon: name, text } = element.dataset;
    element.replaceChildren(...[name && icon(name), text && strings[text]].filter(Boolean));
  }
  for (const element of document.querySelectorAll("[data-placeholder]")) {
    element.placeholder = strings[element.dataset.placeholder];
  }
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", strings[element.dataset.label]);
    if (element.tagName === "BUTTON") element.title = strings[element.dataset.label];
  }
}

let noticeTimer;

/** A line above the conversation; `seconds` of 0 keeps it. */
export function notify(text, { seconds = 6, kind = "info" } = {}) {
  clearTimeout(noticeTimer);
  $("notice").textContent = text;
  $("notice").className = kind;
  if (text && seconds) noticeTimer = setTimeout(() => notify(""), seconds * 1000);
}

/** Calls `draw` at the next frame, once, however often it is asked to; at once in a hidden tab. */
export function oncePerFrame(draw) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    const run = () => {
      waiting = false;
      draw();
    };
    if (document.hidden) setTimeout(run, 200);
    else requestAnimationFrame(run);
  };
}
