// Markdown, code and mathematics of answers. The libraries are loaded when the first answer needs them.

import { iconButton } from "./dom.js";
import { strings } from "./strings.js";

const CLEAN = {
  RETURN_DOM_FRAGMENT: true,
  FORBID_TAGS: ["style", "form", "input", "button", "textarea", "select", "img", "video", "audio", "svg", "math"],
  FORBID_ATTR: ["style", "id", "name"],
};
const MATH_LIMITS = { throwOnError: false, trust: false, strict: "ignore", maxExpand: 200, maxSize: 20 };
let parser;
let highlighter;
let mathematics;

export function loadMarkdown() {
  parser ??= Promise.all([import("./vendor/marked/marked.esm.js"), import("./vendor/dompurify/purify.min.js")]).then(
    ([{ Marked }]) => {
      const marked = new Marked({ gfm: true, breaks: true });
      marked.use({
        extensions: [mathIn("block"), mathIn("inline")],
        renderer: {
          html: ({ text }) => escaped(text), // HTML of an answer is shown, not obeyed
          image: ({ href, text }) => `<a href="${escaped(href)}">${escaped(text || href)}</a>`,
          checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
        },
      });
      return { marked, purify: globalThis.DOMPurify };
    },
  );
  return parser;
}

const escaped = (text) => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);

function mathIn(level) {
  const rules = [
    [/^\$\$([\s\S]+?)\$\$/, true],
    [/^\\\[([\s\S]+?)\\\]/, true],
    ...(level === "inline"
      ? [
          [/^\\\(([\s\S]+?)\\\)/, false],
          [/^\$(?!\s)((?:\\.|[^$\\\n])+?)(?<!\s)\$(?!\d)/, false],
        ]
      : []),
  ];
  return {
    name: `math-${level}`,
    level,
    start: (source) => /\$|\\[([]/.exec(source)?.index,
    tokenizer(source) {
      for (const [rule, display] of rules) {
        const match = rule.exec(source);
        if (match) return { type: `math-${level}`, raw: match[0], tex: match[1], display };
      }
      return undefined;
    },
    renderer: ({ tex, display }) => `<span class="math" data-display="${display}">${escaped(tex)}</span>`,
  };
}

/**
 * Show markdown in an element. Called again with more text, it draws only the blocks that changed.
 * @param final whether the text is complete: the last block of code is highlighted then
 */
export async function renderMarkdown(element, text, final) {
  const { marked, purify } = await loadMarkdown();
  const tokens = marked.lexer(text);
  const drawn = element.markdownBlocks ?? [];
  if (!drawn.length) element.replaceChildren();
  element.markdownBlocks = tokens.map((token, index) => {
    const whole = final || index < tokens.length - 1;
    const old = drawn[index];
    if (old?.raw === token.raw && old.whole === whole) return old;
    const block = document.createElement("div");
    const html = marked.parser(Object.assign([token], { links: tokens.links }));
    block.append(purify.sanitize(html, CLEAN));
    decorate(block, whole);
    if (old) old.block.replaceWith(block);
    else element.append(block);
    return { raw: token.raw, whole, block };
  });
  for (const { block } of drawn.slice(tokens.length)) block.remove();
}

function decorate(block, whole) {
  for (const link of block.querySelectorAll("a[href]")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer";
  }
  for (const table of block.querySelectorAll("table")) {
    const frame = Object.assign(document.createElement("div"), { className: "table", tabIndex: 0 });
    table.replaceWith(frame);
    frame.append(table);
  }
  for (const code of block.querySelectorAll("pre > code")) {
    code.parentElement.tabIndex = 0;
    code.parentElement.before(
      iconButton("copy", strings.copy, () => copyText(code.textContent), { class: "icon copy" }),
    );
    if (whole) highlight(code);
  }
  for (const math of block.querySelectorAll("span.math")) if (whole) typeset(math);
}

export const copyText = (text) => navigator.clipboard?.writeText(text);

async function highlight(code) {
  const language = /language-(\S+)/.exec(code.className)?.[1];
  if (!language) return;
  highlighter ??= import("./vendor/highlight/highlight.min.js");
  const { default: hljs } = await highlighter;
  if (hljs.getLanguage(language)) hljs.highlightElement(code);
}

async function typeset(element) {
  mathematics ??= import("./vendor/katex/katex.min.js").then(() => {
    const sheet = new URL("./vendor/katex/katex.min.css", import.meta.url).href;
    document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href: sheet }));
    return globalThis.katex;
  });
  const katex = await mathematics;
  const displayMode = element.dataset.display === "true";
  const tree = katex.__renderToDomTree(element.textContent, { ...MATH_LIMITS, displayMode });
  moveStyles(tree);
  const drawn = tree.toNode();
  // The page's policy allows styles set by script, and no `style` attributes.
  for (const styled of drawn.querySelectorAll("[data-style]")) styled.style.cssText = styled.dataset.style;
  element.replaceChildren(drawn);
}

function moveStyles(node) {
  if (node.attributes?.style) {
    node.attributes["data-style"] = node.attributes.style;
    delete node.attributes.style;
  }
  for (const child of node.children ?? []) moveStyles(child);
}
