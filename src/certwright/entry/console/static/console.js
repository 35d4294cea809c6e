// Small conveniences; every page works without them. Texts come from data attributes, where they were translated.
(() => {
  "use strict";

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
    } catch {
      const range = document.createRange();
      range.selectNodeContents(source);
      const selection = window.getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
      return;
    }
    const label = button.querySelector("[data-copy-label]");
    const before = label.textContent;
    label.textContent = button.dataset.copied;
    button.disabled = true;
    setTimeout(() => {
      label.textContent = before;
      button.disabled = false;
      button.focus();
    }, 1500);
  });

  document.addEventListener("submit", (event) => {
    const question = event.target.dataset.confirm;
    if (!question) return;
    if (!window.confirm(question)) {
      event.preventDefault();
      return;
    }
    // Asked and answered here: the server needn't ask again.
    const confirmed = document.createElement("input");
    Object.assign(confirmed, { type: "hidden", name: "confirmed", value: "yes" });
    event.target.append(confirmed);
  });

  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-submit-on-change]")) event.target.form.requestSubmit();
  });

  // Menus are <details>: close them on Escape and on a click elsewhere.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });
  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });

  // A form whose answer appears on the page it is on: files and secrets stay in their fields. An answer that is a file
  // is saved like any other download, without an address.
  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.dataset.inline || event.defaultPrevented) return;
    event.preventDefault();
    const sent = new FormData(form, event.submitter);
    const button = event.submitter;
    if (button) button.disabled = true;
    form.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(form.action, { method: "POST", body: sent, headers: { accept: "text/html", "x-inline": "yes" } });
      if (answer.headers.has("x-go")) {
        window.location.assign(answer.headers.get("x-go"));
        return;
      }
      const file = /filename="([^"]+)"/.exec(answer.headers.get("content-disposition") ?? "");
      if (file) {
        const link = document.createElement("a");
        link.href = URL.createObjectURL(await answer.blob());
        link.download = file[1];
        link.click();
        URL.revokeObjectURL(link.href);
        document.getElementById(form.dataset.inline).replaceChildren();
        return;
      }
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const made = page.getElementById(form.dataset.inline);
      const here = document.getElementById(form.dataset.inline);
      if (!made || answer.redirected) {
        window.location.assign(answer.url);
        return;
      }
      here.replaceWith(made);
      made.scrollIntoView({ block: "start" });
      made.focus({ preventScroll: true });
    } catch {
      form.removeAttribute("data-inline");
      form.requestSubmit(button);
    } finally {
      form.removeAttribute("aria-busy");
      if (button) button.disabled = false;
    }
  });

  // Files dropped on a text go into the field for files beside it.
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      const place = event.target.closest?.("[data-drop]");
      if (!place || !event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      place.classList.toggle("over", kind === "dragenter" || kind === "dragover");
      if (kind !== "drop") return;
      const input = place.querySelector("input[type=file]");
      const files = new DataTransfer();
      for (const file of event.dataTransfer.files) if (input.multiple || files.items.length === 0) files.items.add(file);
      input.files = files.files;
      input.focus();
    });
  }

  // After a refusal the first field in question is where the person wants to be.
  document.querySelector("[aria-invalid=true]")?.focus();
})();
