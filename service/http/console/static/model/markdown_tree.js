// What Markdown is read into: plain frozen values, which no DOM knows of. The text in them is text, never markup.

/**
 * @typedef {{readonly type: "text", readonly text: string}} Text
 * @typedef {{readonly type: "code", readonly text: string}} CodeSpan
 * @typedef {{readonly type: "break", readonly hard: boolean}} Break
 * @typedef {{readonly type: "strong" | "emphasis" | "strike", readonly children: readonly Inline[]}} Marked
 * @typedef {{readonly type: "link", readonly target: string, readonly title: string,
 *   readonly children: readonly Inline[]}} Link
 * @typedef {Text | CodeSpan | Break | Marked | Link} Inline
 *
 * @typedef {{readonly type: "paragraph", readonly children: readonly Inline[]}} Paragraph
 * @typedef {{readonly type: "heading", readonly level: number, readonly children: readonly Inline[]}} Heading
 * @typedef {{readonly type: "fence", readonly language: string, readonly text: string}} Fence
 * @typedef {{readonly type: "quote", readonly blocks: readonly Block[]}} Quote
 * @typedef {{readonly type: "rule"}} Rule
 * @typedef {{readonly task: boolean | null, readonly begun: boolean, readonly blocks: readonly Block[]}} Item
 *   `task`: whether its box is ticked, null without a box; `begun`: not if its beginning is in the block before.
 * @typedef {{readonly type: "list", readonly ordered: boolean, readonly first: number, readonly tight: boolean,
 *   readonly items: readonly Item[]}} List
 * @typedef {"left" | "right" | "center" | null} Align
 * @typedef {readonly Inline[]} Cell
 * @typedef {{readonly type: "table", readonly aligns: readonly Align[], readonly header: readonly Cell[] | null,
 *   readonly rows: readonly (readonly Cell[])[]}} Table
 *   `header` is null where it is in a block before.
 * @typedef {Paragraph | Heading | Fence | Quote | Rule | List | Table} Block
 *
 * @typedef {{readonly start: number, readonly end: number, readonly continues: boolean, readonly inLine: boolean,
 *   readonly content: readonly Block[]}} TopBlock
 *   A block that stands by itself in the source, from `start` to before `end`. One that `continues` goes on from the
 *   one before, which had become too long, and `inLine` if even in the midst of a line. Its `content` is one block,
 *   but for such a rest of a line, which stands before what follows it.
 */

/**
 * What somebody reads of these.
 * @param {readonly Inline[]} nodes
 * @returns {string}
 */
function inlineText(nodes) {
  return nodes
    .map((node) => {
      if (node.type === "break") return "\n";
      return "children" in node ? inlineText(node.children) : node.text;
    })
    .join("");
}

/**
 * What somebody reads of these; blocks, cells and items have lines of their own.
 * @param {readonly Block[]} blocks
 * @returns {string}
 */
export function blockText(blocks) {
  return blocks.map(textOfOne).join("\n");
}

/** @param {Block} block @returns {string} */
function textOfOne(block) {
  switch (block.type) {
    case "rule":
      return "";
    case "fence":
      return `${block.language}\n${block.text}`;
    case "quote":
      return blockText(block.blocks);
    case "list":
      return block.items.map((item) => blockText(item.blocks)).join("\n");
    case "table":
      return [block.header ?? [], ...block.rows].flat().map(inlineText).join("\n");
    default:
      return inlineText(block.children);
  }
}
