// The history, in this browser's IndexedDB: conversations, and images beside them.

let database = null;
const images = new Map(); // of this session, and all there is where the browser keeps nothing

const settled = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

/** Open the database; false where the browser does not let the page have one. */
export async function openStore() {
  try {
    const request = indexedDB.open("vlm-run", 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("conversations", { keyPath: "id" });
      request.result.createObjectStore("images", { keyPath: "id" });
    };
    database = await settled(request);
    database.onversionchange = () => database.close();
    return true;
  } catch {
    return false;
  }
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

/** {id, name, width, height, blob?, url?, thumb?}: an image by its content or its URL. */
export async function saveImage(image) {
  images.set(image.id, image);
  await run("images", "readwrite", (store) => store.put(image));
}

export async function loadImage(id) {
  if (!images.has(id)) images.set(id, await run("images", "readonly", (store) => store.get(id)));
  return images.get(id);
}

export async function deleteImages(ids) {
  for (const id of ids) {
    images.delete(id);
    await run("images", "readwrite", (store) => store.delete(id));
  }
}
