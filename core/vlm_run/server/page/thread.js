// The conversation as it is shown: its turns, and where it is scrolled to.

import { $, oncePerFrame } from "./dom.js";
import { path } from "./tree.js";
import { createTurn } from "./turn.js";

const NEAR_BOTTOM_PX = 60;

/** @param actions what the buttons of a turn do; see turn.js */
export function createThread(state, actions) {
  const scroller = $("scroller");
  const thread = $("thread");
  let turns = new Map(); // by node id, those that are shown
  let pinned = true; // whether the latest text is kept in sight
  let shown = null;

  // Answers are drawn as markdown when they come near: long conversations open at once.
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) if (isIntersecting) target.drawNear();
    },
    { root: scroller, rootMargin: "600px" },
  );

  const toBottom = () => scroller.scrollTo({ top: scroller.scrollHeight, behavior: "instant" });

  scroller.addEventListener("scroll", () => {
    const distance = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;
    pinned = distance < NEAR_BOTTOM_PX;
    $("jump").hidden = distance < scroller.clientHeight / 2;
  });
  $("jump").addEventListener("click", toBottom);
  new ResizeObserver(() => pinned && toBottom()).observe(thread);
  new ResizeObserver(() => pinned && toBottom()).observe(scroller);

  /** Show the conversation's current branch. */
  function show({ fresh = false } = {}) {
    const { conversation } = state;
    if (fresh || shown !== conversation) turns = new Map();
    if (shown !== conversation) pinned = true;
    shown = conversation;
    const nodes = path(conversation);
    const kept = turns;
    turns = new Map(nodes.map((node) => [node.id, kept.get(node.id) ?? createTurn(conversation, node, actions)]));
    watcher.disconnect();
    thread.replaceChildren(...turns.values());
    for (const turn of turns.values()) watcher.observe(turn);
    $("welcome").hidden = nodes.length > 0;
    $("jump").hidden = true;
    if (pinned) toBottom();
  }

  const drawStreaming = oncePerFrame(() => {
    const node = state.generation?.node;
    turns.get(node?.id)?.draw(true);
  });

  /** Show what has come of the answer that is being generated, or its end. */
  function update(node, streaming) {
    if (streaming) drawStreaming();
    else turns.get(node.id)?.draw(false);
  }

  const pin = () => {
    pinned = true;
    toBottom();
  };
  return { show, update, pin };
}
