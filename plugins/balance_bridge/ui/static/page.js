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
  document.addEventListener("submit", (event) => {
    const question = event.target.dataset.confirm;
    if (question && !window.confirm(question)) event.preventDefault();
  });
})();
