// Runs before the first paint, so that nobody in the dark is blinded: without a choice, follow the system.
(() => {
  "use strict";
  const root = document.documentElement;
  root.classList.remove("no-js");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    if (root.dataset.theme === "auto") root.setAttribute("data-bs-theme", dark.matches ? "dark" : "light");
  };
  apply();
  dark.addEventListener("change", apply);
})();
