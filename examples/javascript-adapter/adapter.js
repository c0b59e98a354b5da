// An adapter in JavaScript: objects are files below one directory.
//
// Its functions are plain ones (`wit/sync.wit`). Bytes are a `body` that the host holds: this adapter has a handle, hands it on
// whole, and no byte of an object enters it. It declares ranges and input of unknown length. It keeps neither lineage nor
// labels, and does not say that it does.
//
// An object lies in one of 256 directories, by the SHA-256 of its key, which the host computes.

import digest from "tidelock:storage/digest@0.1.1";
import directory from "tidelock:storage/directory-sync@0.1.1";

// `grants.directory.objects` in the configuration.
const OBJECTS = "objects";

// What an operation gives is returned; an error is thrown, as a case of `error` with its reason.
const invalid = (why) => ({ tag: "invalid", val: why });

// The path of a new object, which is its id from then on.
function place(key) {
  const [first] = digest.sha256(Uint8Array.from(key, (character) => character.charCodeAt(0)));
  return `${first.toString(16).padStart(2, "0")}/${key}`;
}

// The path of an object from its id. The host refuses paths out of the grant again.
function path(id) {
  const wrong = (part) => part === "" || part === "." || part === ".." || part.startsWith(".tmp");
  if (id.length > 1024 || /[\\\u0000-\u001f\u007f-\u009f]/.test(id) || id.split("/").some(wrong)) {
    throw invalid(`\`${id}\` is not a path below the backend's root`);
  }
  return id;
}

export const adapterSync = {
  describe() {
    return {
      name: "javascript-fs",
      version: "0.1.0",
      summary: "Keeps objects as files in a directory; written in JavaScript.",
      features: { ranges: true, lineage: false, unsizedInput: true, labels: false },
      settings: [],
    };
  },

  store(data, hint) {
    const id = place(hint.key);
    const size = directory.write(OBJECTS, id, data, { size: hint.size, ifAbsent: true });
    return { id, size };
  },

  retrieve(id, range) {
    const [, body] = directory.read(OBJECTS, path(id), range);
    return body;
  },

  incrementalUpdate() {
    throw { tag: "unsupported", val: "this adapter keeps no lineage" };
  },

  stat(id) {
    const { size, modified } = directory.stat(OBJECTS, path(id));
    return { size, base: null, archive: null, modified, labels: [] };
  },

  remove(id) {
    directory.remove(OBJECTS, path(id));
  },

  probe() {
    directory.listEntries(OBJECTS, "", null, 1);
    return { ready: true, detail: "the directory answers" };
  },
};
