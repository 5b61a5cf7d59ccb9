// The order of what is told anew in its place.

/**
 * Move what is out of its place, and nothing else; what has the focus keeps it.
 * @param {Element} parent
 * @param {Element[]} children all of them
 */
export function putInOrder(parent, children) {
  const held = /** @type {HTMLElement | null} */ (document.activeElement);
  children.forEach((child, place) => {
    if (parent.children[place] !== child) parent.insertBefore(child, parent.children[place] ?? null);
  });
  if (held !== document.activeElement && parent.contains(held)) held?.focus({ preventScroll: true });
}
