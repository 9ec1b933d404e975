// Every English word of the page.

const number = new Intl.NumberFormat("en");
export const count = (value) => number.format(value);
const plural = (value, word) => `${count(value)} ${word}${value === 1 ? "" : "s"}`;

/** Words for what the model takes: images, videos or both. */
function offered(image, video) {
  const kinds = [image && "image", video && "video"].filter(Boolean);
  const many = kinds.map((kind) => `${kind}s`).join(" and ");
  const one = kinds.map((kind) => (kind === "image" ? "an image" : "a video")).join(" or ");
  return {
    question: `Ask about your ${many}…`,
    attachments: `Attached ${many}, in the order of the prompt`,
    addFile: `Add ${many} from files`,
    addUrl: `Add ${one} by its URL`,
    drop: `Drop ${many} to add them`,
    welcome: `Ask about your ${many}`,
    welcomeHint: `Drop, paste or choose ${many}. What each one costs is shown before you send it.`,
    url: `URL of ${one}`,
    notMedia: (name) => `${name} is not ${one}.`,
    suggestions: [
      image && "What is in the image?",
      video && "What happens in the video?",
      image && "Read the text in this image.",
      image && "What differs between these images?",
    ].filter(Boolean),
  };
}

/** Change the words that depend on what the model takes. */
export const offer = (image, video) => Object.assign(strings, offered(image, video));

export const strings = {
  ...offered(true, false),
  skip: "Skip to the question",
  history: "Chats",
  openHistory: "Show chats",
  closeHistory: "Hide chats",
  newChat: "New chat",
  untitled: "New chat",
  exportAll: "Export all",
  exportChat: "Export this chat as JSONL",
  import: "Import",
  model: "Model",
  settings: "Settings",
  conversation: "Conversation",
  jump: "Jump to the latest answer",
  ask: "Ask a question",
  send: "Send",
  stop: "Stop (Esc)",
  editing: "Editing a question. The earlier version is kept as a branch.",
  cancel: "Cancel",
  close: "Close",
  save: "Save",
  add: "Add",
  you: "You",
  reasoning: "Reasoning",
  thinking: "Reasoning…",
  waiting: "Waiting for the first token",
  copy: "Copy",
  copied: "Copied",
  edit: "Edit",
  regenerate: "Regenerate",
  retry: "Retry",
  deleteTurn: "Delete this turn",
  deleteChat: (title) => `Delete “${title}”`,
  confirmDelete: (title) => `Delete “${title}”? This cannot be undone.`,
  remove: "Delete",
  previous: "Previous version",
  next: "Next version",
  version: (index, total) => `${index} / ${total}`,
  stopped: "Stopped",
  cutOff: "Ended at the token limit",
  interrupted: "This answer was interrupted.",

  removeMedia: (name) => `Remove ${name}`,
  moveEarlier: (name) => `Move ${name} earlier`,
  moveLater: (name) => `Move ${name} later`,
  shrink: (side) => `Shrink to ${count(side)} px`,
  openImage: (name) => `Show ${name} at full size`,
  playVideo: (name) => `Play ${name}`,
  unnamed: (kind) => `Unnamed ${kind}`,
  size: (width, height) => `${count(width)} × ${count(height)}`,
  seconds: (s) => (s < 60 ? `${s.toFixed(1)} s` : `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`),
  bytes: (bytes) => (bytes < 1e6 ? `${count(Math.ceil(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`),
  cost: (tokens, frames) => (frames ? `${plural(frames, "frame")} · ` : "") + plural(tokens, "token"),
  counting: "Counting tokens…",
  unknownCost: "Cost unknown",
  noPreview: "No preview",
  loadingUrl: "Fetching…",
  noVideos: (name, model) => `${name} is a video, and ${model} takes no videos.`,
  videosOff: (name) => `${name} is a video, and the server takes none until it is started with --max-videos 1.`,
  videoTooLarge: (name, bytes, most) =>
    `${name} has ${strings.bytes(bytes)}, and the server takes videos of ${strings.bytes(most)} at most.`,
  doesNotFit: "Does not fit",
  tooMany: (most, kind) => `Only ${plural(most, kind)} per conversation`,
  budget: (used, most) => `≈ ${count(used)} of ${count(most)} tokens`,
  budgetImages: (tokens) => `images ${count(tokens)}`,
  budgetVideos: (tokens) => `videos ${count(tokens)}`,
  tooLong: "too long for the model",

  welcomeCost: (model, tokens) => `${model} · an image of 640 × 480 costs ${plural(tokens, "token")}`,
  welcomePrivate: "Chats stay in this browser.",

  promptTokens: (tokens) => plural(tokens, "prompt token"),
  answerTokens: (tokens) => plural(tokens, "answer token"),
  firstToken: (seconds) => `first after ${seconds.toFixed(2)} s`,
  speed: (rate) => `${rate.toFixed(rate < 10 ? 1 : 0)} tokens/s`,

  systemPrompt: "System prompt",
  systemHint: "For this chat. Empty for the model's default.",
  temperature: "Temperature",
  temperatureHint: "0 always picks the most likely token: regenerating gives the same answer.",
  topP: "Top-p",
  maxTokens: "Most answer tokens",
  seed: "Seed",
  minPixels: "Smallest image area (min_pixels)",
  maxPixels: "Largest area of an image or a frame (max_pixels)",
  fps: "Frames of a video per second (fps)",
  fpsHint: "Empty for the model’s own rule.",
  maxFrames: "Most frames of a video (max_frames)",
  pixelsUnsupported: "This model does not support min_pixels and max_pixels.",
  serverDefault: "Server default",

  keyTitle: "This server asks for an API key",
  keyHint: "The key is kept for this tab only.",
  key: "API key",
  keyWrong: "The server refused this key.",
  urlHint: "The server fetches it; the browser does not.",

  lost: "The connection to the server was lost. Nothing you wrote is lost.",
  offline: "The server cannot be reached. Trying again…",
  noStore: "This browser does not let the page keep chats: they end with this tab.",
  storeFailed: (reason) => `This chat could not be saved: ${reason}`,
  serverSaid: (status) => `The server answered with status ${status}.`,
  imported: (chats) => `Imported ${plural(chats, "chat")}.`,
  importLine: (file, line, reason) => `${file}, line ${line}: ${reason}`,
  importMissing: (media) =>
    `${plural(media, "image or video")} could not be read and ${media === 1 ? "was" : "were"} left out.`,
  importNotJson: "not JSON",
  importNoQuestion: "no question in it",
};
