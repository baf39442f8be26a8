/** What `npm run lint` holds the console and its tests to. */

const BROWSER = [
  ..."AbortController AbortSignal Element EventSource Intl MutationObserver ResizeObserver URL URLSearchParams".split(
    " ",
  ),
  ..."addEventListener cancelAnimationFrame clearTimeout crypto document fetch".split(" "),
  ..."getComputedStyle location matchMedia navigator performance".split(" "),
  ..."requestAnimationFrame sessionStorage setTimeout window".split(" "),
];
const NODE =
  "AbortController AbortSignal Event EventTarget Response URL clearTimeout console fetch process setTimeout".split(
    " ",
  );
const readonly = (names) => Object.fromEntries(names.map((name) => [name, "readonly"]));

const rules = {
  "no-undef": "error",
  "no-unused-vars": "error",
  "no-var": "error",
  "prefer-const": "error",
  eqeqeq: ["error", "always", { null: "ignore" }],
  "no-implicit-globals": "error",
  "no-eval": "error",
  "no-new-func": "error",
  "no-shadow": "error",
  "no-unreachable": "error",
  "no-fallthrough": "error",
  "no-dupe-keys": "error",
  "no-self-assign": "error",
  "no-cond-assign": "error",
  "no-unsafe-finally": "error",
  "no-promise-executor-return": "off",
  "require-atomic-updates": "off",
  complexity: ["error", 12],
  "max-lines": ["error", 399],
  "max-lines-per-function": ["error", 49],
};

export default [
  { ignores: ["**/node_modules/", "**/vendor/"] },
  {
    files: ["**/*.js"],
    languageOptions: { ecmaVersion: 2022, sourceType: "module", globals: readonly(BROWSER) },
    rules,
  },
  {
    files: ["**/tests/browser/**/*.js"],
    languageOptions: { globals: readonly([...NODE, ...BROWSER]) },
    rules: { "max-lines-per-function": "off" },
  },
];
