// Dialogs: the settings, the key, the URL of an image or a video, and yes or no.

import { h, iconButton } from "./dom.js";
import { strings } from "./strings.js";

/** Show a form; its values by name, or null if it was closed. A field is {name, label, hint, ...attributes}. */
function ask({ title, hint, fields = [], submit }) {
  return new Promise((resolve) => {
    let values = null;
    const rows = fields.map(({ name, label, hint: help, tag = "input", value, ...attributes }) => {
      const input = h(tag, { id: `field-${name}`, name, "aria-describedby": help && `hint-${name}`, ...attributes });
      input.value = value ?? "";
      return h(
        "div",
        { class: "field" },
        h("label", { for: input.id }, label),
        input,
        help && h("small", { id: `hint-${name}` }, help),
      );
    });
    const onsubmit = (event) => {
      event.preventDefault();
      values = Object.fromEntries(new FormData(event.target));
      dialog.close();
    };
    const form = h(
      "form",
      { onsubmit },
      h(
        "div",
        { class: "title" },
        h("h2", { id: "dialog-title" }, title),
        iconButton("close", strings.close, () => dialog.close()),
      ),
      hint && h("p", {}, hint),
      h("div", { class: "fields" }, ...rows),
      h(
        "div",
        { class: "buttons" },
        h("button", { type: "button", onclick: () => dialog.close() }, strings.cancel),
        h("button", { class: "primary" }, submit),
      ),
    );
    const onclose = () => {
      dialog.remove();
      resolve(values);
    };
    const dialog = h("dialog", { "aria-labelledby": "dialog-title", onclose }, form);
    document.body.append(dialog);
    dialog.showModal();
    dialog.querySelector("input, textarea, .primary").focus();
  });
}

export const confirmDelete = async (title) =>
  (await ask({ title: strings.confirmDelete(title), submit: strings.remove })) !== null;

/** The key that the user gives, or null. */
export async function askForKey(wasRefused) {
  const field = { name: "key", label: strings.key, type: "password", autocomplete: "off", required: true };
  const hint = wasRefused ? `${strings.keyWrong} ${strings.keyHint}` : strings.keyHint;
  const values = await ask({ title: strings.keyTitle, hint, fields: [field], submit: strings.save });
  return values?.key.trim();
}

export async function askForUrl() {
  const field = {
    name: "url",
    label: strings.url,
    type: "url",
    pattern: "https?://.*",
    placeholder: "https://",
    required: true,
  };
  const values = await ask({ title: strings.addUrl, hint: strings.urlHint, fields: [field], submit: strings.add });
  return values?.url.trim();
}

const NUMBERS = [
  { name: "temperature", label: strings.temperature, hint: strings.temperatureHint, min: 0, max: 2, step: "any" },
  { name: "top_p", label: strings.topP, min: 0.01, max: 1, step: "any" },
  { name: "max_tokens", label: strings.maxTokens, min: 1, step: 1 },
  { name: "seed", label: strings.seed, min: 0, step: 1 },
  { name: "min_pixels", label: strings.minPixels, min: 1, step: 1, bounds: true },
  { name: "max_pixels", label: strings.maxPixels, min: 1, step: 1, bounds: true },
  { name: "fps", label: strings.fps, hint: strings.fpsHint, min: 0.01, step: "any", videos: true },
  { name: "max_frames", label: strings.maxFrames, min: 1, step: 1, videos: true },
];

/** The settings as the user leaves them, {system, settings}, or null. An empty number is the server's default. */
export async function askForSettings(system, settings, limits) {
  // All of them while the server's limits are not known.
  const offered = NUMBERS.filter(({ videos }) => !videos || limits.max_videos !== 0);
  const numbers = offered.map(({ bounds, videos, ...field }) => ({
    type: "number",
    placeholder: strings.serverDefault,
    value: settings[field.name],
    disabled: bounds && limits.pixel_bounds === false,
    ...field,
    hint: bounds && limits.pixel_bounds === false ? strings.pixelsUnsupported : field.hint,
  }));
  const prompt = {
    name: "system",
    label: strings.systemPrompt,
    hint: strings.systemHint,
    tag: "textarea",
    rows: 3,
    value: system,
  };
  const values = await ask({ title: strings.settings, fields: [prompt, ...numbers], submit: strings.save });
  if (!values) return null;
  const given = NUMBERS.filter(({ name }) => values[name]).map(({ name }) => [name, Number(values[name])]);
  return { system: values.system.trim(), settings: Object.fromEntries(given) };
}
