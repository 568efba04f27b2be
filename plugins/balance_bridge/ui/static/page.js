// Follows Airflow's theme while the page is shown inside it, opens Airflow's own pages there, and asks before an action.
"use strict";
(() => {
  const here = document.documentElement;
  let outside = null;
  try {
    outside = window.parent !== window && window.parent.document.documentElement;
  } catch { /* shown inside something that is not Airflow */ }

  const colours = {
    "--page": "--chakra-colors-bg",
    "--raised": "--chakra-colors-bg-subtle",
    "--line": "--chakra-colors-border",
    "--text": "--chakra-colors-fg",
    "--quiet": "--chakra-colors-fg-muted",
  };
  const follow = () => {
    here.classList.toggle("dark", outside.classList.contains("dark"));
    here.classList.toggle("light", !outside.classList.contains("dark"));
    const theirs = getComputedStyle(outside);
    for (const [ours, name] of Object.entries(colours)) {
      const value = theirs.getPropertyValue(name).trim();
      if (value) here.style.setProperty(ours, value);
    }
  };
  if (outside) {
    follow();
    new MutationObserver(follow).observe(outside, { attributes: true, attributeFilter: ["class", "style", "data-theme"] });
    // The frame may not leave its window by itself; Airflow's router takes over from here.
    document.addEventListener("click", (event) => {
      const link = event.target.closest("a[data-airflow]");
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      window.parent.history.pushState(null, "", link.href);
      window.parent.dispatchEvent(new PopStateEvent("popstate"));
    });
  }
  // Asked in the page itself: inside Airflow's frame the browser shows no dialogs of its own.
  const ask = (question, go) => {
    const dialog = document.createElement("dialog");
    dialog.setAttribute("aria-label", question);
    const text = document.createElement("p");
    text.textContent = question;
    const buttons = document.createElement("p");
    for (const [label, act] of [["Yes, go on", go], ["No", null]]) {
      const button = document.createElement("button");
      button.textContent = label;
      button.addEventListener("click", () => { dialog.close(); if (act) act(); });
      buttons.append(button, " ");
    }
    dialog.append(text, buttons);
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  };
  document.addEventListener("submit", (event) => {
    const form = event.target;
    const question = form.dataset.confirm;
    if (!question || form.dataset.confirmed) return;
    event.preventDefault();
    const pressed = event.submitter;
    ask(question, () => {
      form.dataset.confirmed = "yes";
      form.requestSubmit(pressed);
    });
  });
})();
