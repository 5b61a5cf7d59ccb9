// Paired marks and links of a paragraph into a tree. There is no link in a link, and nothing is nested deeper than
// `DEEPEST`: the marks of what would be are text.

/**
 * @import {Inline} from "./markdown_tree.js"
 * @import {Run} from "./markdown_emphasis.js"
 */

/**
 * @typedef {{kind: "text", text: string}} Words
 * @typedef {{kind: "node", node: Inline} | {kind: "link", target: string, title: string} | {kind: "end"}} Other
 * @typedef {Words | Run | Other} Token
 *
 * @typedef {{children: Inline[], words: string, made: (children: readonly Inline[]) => Inline}} Level
 *   `words`: text at its end, which more may be added to.
 * @typedef {{level: Level | null, mark: string}} Opened
 *   Without a level of its own if its `mark` is text.
 * @typedef {{levels: Level[], opened: Opened[], links: number}} Growing
 */

export const DEEPEST = 32;

/**
 * @param {readonly Token[]} tokens
 * @returns {readonly Inline[]}
 */
export function treeOf(tokens) {
  const root = levelOf((children) => ({ type: "emphasis", children }));
  /** @type {Growing} */
  const growing = { levels: [root], opened: [], links: 0 };
  for (const token of tokens) {
    if (token.kind === "text") top(growing).words += token.text;
    else if (token.kind === "node") add(top(growing), token.node);
    else if (token.kind === "run") runInto(growing, token);
    else if (token.kind === "link") openLink(growing, token.target, token.title);
    else closeLink(growing);
  }
  return childrenOf(root);
}

/** @param {(children: readonly Inline[]) => Inline} made @returns {Level} */
function levelOf(made) {
  return { children: [], words: "", made };
}

/** @param {Growing} growing @returns {Level} */
function top(growing) {
  return growing.levels[growing.levels.length - 1];
}

/** @param {Level} level @param {Inline} node */
function add(level, node) {
  endWords(level);
  level.children.push(node);
}

/** @param {Level} level */
function endWords(level) {
  if (level.words !== "") level.children.push(Object.freeze({ type: "text", text: level.words }));
  level.words = "";
}

/** @param {Level} level @returns {readonly Inline[]} */
function childrenOf(level) {
  endWords(level);
  return Object.freeze(level.children);
}

/** @param {Growing} growing @param {Run} run */
function runInto(growing, { char, left, opens, closes }) {
  for (let number = 0; number < closes.length; number++) close(growing);
  top(growing).words += char.repeat(left);
  for (const count of opens.toReversed()) {
    const type = char === "~" ? "strike" : count === 2 ? "strong" : "emphasis";
    open(growing, char.repeat(count), (children) => ({ type, children }));
  }
}

/** @param {Growing} growing @param {string} mark @param {(children: readonly Inline[]) => Inline} made */
function open(growing, mark, made) {
  const deep = growing.levels.length > DEEPEST;
  const level = deep ? null : levelOf(made);
  growing.opened.push({ level, mark });
  if (level) growing.levels.push(level);
  else top(growing).words += mark;
}

/** @param {Growing} growing */
function close(growing) {
  const { level, mark } = /** @type {Opened} */ (growing.opened.pop());
  if (!level) {
    top(growing).words += mark;
    return;
  }
  growing.levels.pop();
  add(top(growing), Object.freeze(level.made(childrenOf(level))));
}

/** @param {Growing} growing @param {string} target @param {string} title */
function openLink(growing, target, title) {
  const mark = growing.links > 0 || growing.levels.length > DEEPEST ? "" : "[";
  growing.links++;
  if (mark) open(growing, mark, (children) => ({ type: "link", target, title, children }));
  else growing.opened.push({ level: null, mark });
}

/** @param {Growing} growing */
function closeLink(growing) {
  growing.links--;
  close(growing);
}
