// Where a link may lead. What an agent says is not trusted: an address is read as a browser would read it, and only
// what a person may be sent to is let through; the address that comes out is the one that was judged.

const SCHEMES = new Set(["http:", "https:", "mailto:"]);

/**
 * The address that a link to this may have; null if there is to be none.
 * @param {string} text
 * @returns {string | null}
 */
export function linkTarget(text) {
  try {
    const url = new URL(text);
    return SCHEMES.has(url.protocol) ? url.href : null;
  } catch {
    return null; // relative, or no address at all
  }
}
