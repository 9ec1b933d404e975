// The history, in this browser's IndexedDB: conversations, and images and videos beside them.

let database = null;
const media = new Map(); // of this session, and all there is where the browser keeps nothing

const settled = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

/** Open the database; false where the browser does not let the page have one. */
export async function openStore() {
  try {
    const request = indexedDB.open("vlm-run", 2);
    request.onupgradeneeded = ({ oldVersion }) => {
      if (oldVersion === 1) return renameImages(request.transaction);
      request.result.createObjectStore("conversations", { keyPath: "id" });
      request.result.createObjectStore("media", { keyPath: "id" });
    };
    database = await settled(request);
    database.onversionchange = () => database.close();
    return true;
  } catch {
    return false;
  }
}

/** Version 1 had images only. */
function renameImages(transaction) {
  transaction.objectStore("images").name = "media";
  transaction.objectStore("conversations").openCursor().onsuccess = ({ target: { result: cursor } }) => {
    if (!cursor) return;
    const conversation = cursor.value;
    for (const node of Object.values(conversation.nodes)) node.media = node.images;
    cursor.update(conversation);
    cursor.continue();
  };
}

async function run(store, mode, work) {
  if (!database) return undefined;
  return settled(work(database.transaction(store, mode).objectStore(store)));
}

/** All conversations, the latest first. */
export async function allConversations() {
  const found = (await run("conversations", "readonly", (store) => store.getAll())) ?? [];
  return found.sort((one, other) => other.updated - one.updated);
}

export const saveConversation = (conversation) => run("conversations", "readwrite", (store) => store.put(conversation));

export const deleteConversation = (id) => run("conversations", "readwrite", (store) => store.delete(id));

export async function saveMedia(each) {
  media.set(each.id, each);
  await run("media", "readwrite", (store) => store.put(each));
}

export async function loadMedia(id) {
  if (!media.has(id)) {
    const found = await run("media", "readonly", (store) => store.get(id));
    media.set(id, found && { kind: "image", ...found }); // version 1 noted no kind
  }
  return media.get(id);
}

export async function deleteMedia(ids) {
  for (const id of ids) {
    media.delete(id);
    await run("media", "readwrite", (store) => store.delete(id));
  }
}
