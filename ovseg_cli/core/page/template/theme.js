"use strict";
// Before anything is drawn: say that scripts run, and take the theme that was chosen last.
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  try {
    const kept = localStorage.getItem("ovseg-theme");
    if (kept === "light" || kept === "dark") root.dataset.theme = kept;
  } catch {
    // A browser that keeps nothing for files follows the system.
  }
})();
