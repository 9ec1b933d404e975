// The list of chats, beside the conversation or, on a narrow screen, over it.

import { $, h, iconButton } from "./dom.js";
import { strings } from "./strings.js";

export function createSidebar(state, { open, remove }) {
  const sidebar = $("sidebar");
  const toggle = (shown) => {
    sidebar.classList.toggle("open", shown);
    $("shade").hidden = !shown;
    $("open-sidebar").setAttribute("aria-expanded", shown);
    if (shown) $("close-sidebar").focus();
  };
  $("open-sidebar").addEventListener("click", () => toggle(true));
  $("close-sidebar").addEventListener("click", () => {
    toggle(false);
    $("open-sidebar").focus();
  });
  $("shade").addEventListener("click", () => toggle(false));
  sidebar.addEventListener("keydown", (event) => event.key === "Escape" && toggle(false));

  function draw() {
    const items = state.conversations.map((conversation) => {
      const title = conversation.title || strings.untitled;
      const current = conversation.id === state.conversation.id;
      const choose = () => {
        open(conversation);
        toggle(false);
      };
      return h(
        "li",
        { class: current ? "current" : null },
        h("button", { type: "button", class: "chat", onclick: choose, "aria-current": current ? "page" : null }, title),
        iconButton("trash", strings.deleteChat(title), () => remove(conversation)),
      );
    });
    $("chats").replaceChildren(...items);
  }
  return { draw, close: () => toggle(false) };
}
