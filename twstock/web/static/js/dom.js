/** Elements without markup: what comes from the server is text, whatever it looks like. */

/** @param {string} id @returns {any} */
export const byId = (id) => document.getElementById(id);

/**
 * A new element.
 * @param {string} tag
 * @param {Record<string, string | number | boolean>} [attributes] - false leaves one out
 * @param {...(Node | string)} children - a string becomes text
 * @returns {any}
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false) made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children);
  return made;
}

/** Set an element's text, unless it is there already: a change costs a layout. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Set or remove an attribute. */
export function setAttribute(node, name, value) {
  if (value === null || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, String(value));
}

/**
 * A function that runs `draw` in the next frame, once however often it is called.
 * @param {() => void} draw
 */
export function nextFrame(draw) {
  let asked = 0;
  return () => {
    asked ||= requestAnimationFrame(() => {
      asked = 0;
      draw();
    });
  };
}

/** Say something to a screen reader, politely. */
export function announce(text) {
  setText(byId("announcer"), text);
}
