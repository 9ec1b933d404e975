// A conversation: a tree of questions and answers, in which one branch at a time is shown.
//
// {id, title, created, updated, system, settings, nodes: {id: node}, next}
// node: {id, parent, role, text, media, reasoning, error, stats, finish, next}
// `next` is the child on the branch that is shown; the conversation's own is the first question.

export const randomId = () =>
  `n${Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("")}`;

export function newConversation(fields = {}) {
  const now = Date.now();
  return { id: randomId(), title: "", created: now, updated: now, system: "", nodes: {}, next: null, ...fields };
}

const above = (conversation, parent) => (parent ? conversation.nodes[parent] : conversation);

/** The questions and answers that are shown, in order; up to and with the node `last` if it is given. */
export function path(conversation, last = null) {
  const nodes = [];
  for (let id = conversation.next; id; id = conversation.nodes[id].next) {
    nodes.push(conversation.nodes[id]);
    if (id === last) break;
  }
  return nodes;
}

/** The versions of a question or an answer, in the order they were made. */
export const versions = (conversation, parent) =>
  Object.values(conversation.nodes).filter((node) => node.parent === parent);

/** Add a question or an answer below `parent` (null for a first question) and show it. */
export function addNode(conversation, parent, fields) {
  const node = { id: randomId(), parent, text: "", media: [], next: null, ...fields };
  conversation.nodes[node.id] = node;
  above(conversation, parent).next = node.id;
  return node;
}

/** Show another version of a question or an answer. */
export function show(conversation, id) {
  above(conversation, conversation.nodes[id].parent).next = id;
}

/** Delete one version of an answer, and what follows it. */
export function removeAnswer(conversation, id) {
  const { parent } = conversation.nodes[id];
  const below = (child) => versions(conversation, child).flatMap((node) => [...below(node.id), node.id]);
  for (const gone of [...below(id), id]) delete conversation.nodes[gone];
  above(conversation, parent).next = versions(conversation, parent).at(-1)?.id ?? null;
}

/** Delete a question with its answers; the questions that follow on any branch stay, and move up. */
export function removeTurn(conversation, id) {
  const { parent, next } = conversation.nodes[id];
  const follows = next && conversation.nodes[next].next;
  for (const answer of versions(conversation, id)) {
    for (const question of versions(conversation, answer.id)) question.parent = parent;
    delete conversation.nodes[answer.id];
  }
  delete conversation.nodes[id];
  above(conversation, parent).next = follows ?? versions(conversation, parent).at(-1)?.id ?? null;
}

/** The ids of all images and videos that a conversation mentions, on any branch. */
export const mediaIds = (conversation) => new Set(Object.values(conversation.nodes).flatMap((node) => node.media));
