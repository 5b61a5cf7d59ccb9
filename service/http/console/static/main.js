// The entry: which view the address names, the theme, and who is asking.
//
// A view is made for an address and is closed when another one is gone to; one that knows how to go on with the next
// address of its own kind is told of it instead.

import { fill, h } from "./parts/dom.js";
import { hasCredential, onUnauthenticated, useCredential } from "./service/api.js";
import { browser, tab } from "./service/tab.js";
import { chatView } from "./views/chat.js";
import { deadLettersView } from "./views/dead_letters.js";
import { healthView } from "./views/health.js";
import { logView } from "./views/log.js";
import { operationView } from "./views/operation.js";
import { operationsView } from "./views/operations.js";
import { tasksView } from "./views/tasks.js";

/** @typedef {import("./parts/view.js").Address} Address */
/** @typedef {import("./parts/view.js").View} View */

/** @type {Record<string, (address: Address) => View>} */
const VIEWS = {
  chat: chatView,
  tasks: (address) => (address.names.length ? logView(address) : tasksView(address)),
  operations: (address) => (address.names.length ? operationView(address) : operationsView(address)),
  "dead-letters": deadLettersView,
  health: healthView,
};

const THEMES = ["auto", "dark", "light"]; // auto: as the system has it
const main = /** @type {HTMLElement} */ (document.getElementById("main"));
let shown = /** @type {{make: (address: Address) => View, depth: number, view: View} | null} */ (null);

/** What the address names: `#/<view>/<name>…?<query>`; what names nothing is a new chat. */
function address() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const [view, ...names] = path.split("/").filter(Boolean).map(decoded);
  if (!Object.hasOwn(VIEWS, view ?? "")) return { view: "chat", names: [], query: new URLSearchParams() };
  return { view, names, query: new URLSearchParams(query ?? "") };
}

/** @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function go() {
  const { view: name, names, query } = address();
  const make = VIEWS[name];
  const depth = Math.min(names.length, 1);
  if (shown?.make === make && shown.depth === depth && shown.view.go?.({ names, query })) return titled(name);
  shown?.view.close();
  const view = make({ names, query });
  shown = { make, depth, view };
  fill(main, view.element);
  main.scrollTop = 0;
  titled(name);
}

/** @param {string} name */
function titled(name) {
  document.title = `${shown?.view.title} · Playhead`;
  for (const link of document.querySelectorAll(".shell-nav a")) {
    if (link.getAttribute("href") === `#/${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

// --- the theme -------------------------------------------------------------------------------------------------------

const dark = matchMedia("(prefers-color-scheme: dark)");
const themeButton = /** @type {HTMLButtonElement} */ (document.getElementById("theme"));

function showTheme() {
  const chosen = browser.kept("playhead.theme") ?? THEMES[0];
  const theme = chosen === THEMES[0] ? (dark.matches ? "dark" : "light") : chosen;
  document.documentElement.dataset.theme = theme;
  themeButton.textContent = `Theme: ${chosen}`;
}

function nextTheme() {
  const chosen = THEMES.indexOf(browser.kept("playhead.theme") ?? THEMES[0]);
  browser.keep("playhead.theme", THEMES[(chosen + 1) % THEMES.length]);
  showTheme();
}

// --- who is asking ---------------------------------------------------------------------------------------------------

const signIn = /** @type {HTMLDialogElement} */ (document.getElementById("sign-in"));
const signOut = /** @type {HTMLButtonElement} */ (document.getElementById("sign-out"));
const withoutOne = /** @type {HTMLElement} */ (document.getElementById("sign-in-without"));
const credential = /** @type {HTMLInputElement} */ (document.getElementById("credential"));

function askWho() {
  if (signIn.open) return;
  const problem = /** @type {HTMLElement} */ (document.getElementById("sign-in-problem"));
  problem.textContent = hasCredential() ? "The service does not take this credential." : "";
  withoutOne.hidden = !hasCredential();
  signIn.returnValue = ""; // Escape says nothing
  signIn.showModal();
}

function signedIn() {
  if (signIn.returnValue === "none") return forget();
  if (signIn.returnValue !== "use" || !credential.value) return;
  useCredential(credential.value.trim());
  credential.value = "";
  start();
}

/** What this tab has of whoever asked: drafts and notices, too. */
function forget() {
  tab.forgetAll();
  fill(/** @type {HTMLElement} */ (document.getElementById("toasts")));
  start();
}

function start() {
  signOut.hidden = !hasCredential();
  shown?.view.close();
  shown = null;
  fill(main, h("p", { class: "empty" }, "…"));
  go();
}

document.querySelector(".skip")?.addEventListener("click", (event) => {
  event.preventDefault(); // the address is the view's
  main.focus();
});
onUnauthenticated(askWho);
signIn.addEventListener("close", signedIn);
signOut.addEventListener("click", forget);
themeButton.addEventListener("click", nextTheme);
dark.addEventListener("change", showTheme);
addEventListener("hashchange", go);
showTheme();
start();
