// What a view is: a page that an address names. It is closed when another one is gone to.

/** @typedef {{names: string[], query: URLSearchParams}} Address what stands behind the view's name, and the query */
/**
 * @typedef {object} View
 * @property {HTMLElement} element
 * @property {string} title
 * @property {() => void} close
 * @property {(address: Address) => boolean} [go] whether it went on to this address by itself
 */

export {};
