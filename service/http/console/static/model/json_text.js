// JSON that a person has written.

/**
 * What a text says, or in a sentence what is the matter with it. A whole number that would not be kept as it is written
 * is refused.
 * @param {string} text
 * @returns {{value: unknown} | {problem: string}}
 */
export function readJson(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return { problem: `This is no JSON (a text stands in double quotes): ${/** @type {Error} */ (error).message}` };
  }
  const lost = unsafeNumber(value);
  return lost === null
    ? { value }
    : { problem: `${lost} has more digits than are kept here: put it in double quotes.` };
}

/** @param {unknown} value @returns {number | null} */
function unsafeNumber(value) {
  if (typeof value === "number") return Math.abs(value) > Number.MAX_SAFE_INTEGER ? value : null;
  if (typeof value !== "object" || value === null) return null;
  for (const each of Object.values(value)) {
    const found = unsafeNumber(each);
    if (found !== null) return found;
  }
  return null;
}
