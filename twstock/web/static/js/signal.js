/**
 * An event source: calls its listeners, one after the other.
 * @template T
 */
export class Signal {
  #listeners = new Set();

  /** @param {(value: T) => void} listener @returns {() => void} stops listening */
  listen(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** @param {T} [value] */
  tell(value) {
    for (const listener of this.#listeners) listener(value);
  }
}
