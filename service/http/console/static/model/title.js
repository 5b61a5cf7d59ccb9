// What a session is called that nobody has named.

const MAX_CHARACTERS = 60;

/** The beginning of what is said first; no character is cut in two. @param {string} text */
export function titleOf(text) {
  const line = text.trim().split("\n", 1)[0];
  const characters = [...line.slice(0, 2 * MAX_CHARACTERS + 2)];
  if (characters.length <= MAX_CHARACTERS) return line;
  return `${characters.slice(0, MAX_CHARACTERS - 1).join("")}…`;
}
