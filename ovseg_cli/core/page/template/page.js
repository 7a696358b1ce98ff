"use strict";
// The page as a whole: theme, where one is, which confusion, copying, saving, printing.
(() => {
  const root = document.documentElement;

  const theme = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const showTheme = () => theme.setAttribute("aria-pressed", isDark());
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    showTheme();
    try {
      localStorage.setItem("ovseg-theme", root.dataset.theme);
    } catch {
      // It holds for this visit.
    }
  });
  system.addEventListener("change", showTheme);
  showTheme();

  const links = new Map([...document.querySelectorAll(".bar a")].map((link) => [link.hash.slice(1), link]));
  const sections = [...document.querySelectorAll("main > section")];
  function showPlace() {
    const passed = sections.filter((section) => section.getBoundingClientRect().top < innerHeight / 3);
    const isEnd = innerHeight + scrollY >= document.body.scrollHeight - 2;
    const current = (isEnd && scrollY > 0 ? sections.at(-1) : passed.at(-1))?.id;
    const list = document.querySelector(".bar ul");
    if (links.has(current)) list.scrollLeft = links.get(current).offsetLeft - list.clientWidth / 3;
    links.forEach((link, id) => (id === current ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current")));
  }
  addEventListener("scroll", showPlace, { passive: true });
  showPlace();

  const MOST_AT_ONCE = 4;
  const choice = document.getElementById("heat-choice");
  if (choice) {
    const heats = [...document.querySelectorAll(".heat-box")];
    const show = () => heats.forEach((heat) => (heat.hidden = choice.value !== "" && heat.id !== choice.value));
    choice.value = heats.length > MOST_AT_ONCE ? heats[0].id : "";
    choice.addEventListener("change", show);
    show();
  }

  for (const button of document.querySelectorAll(".copy")) {
    const text = button.previousElementSibling;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text.textContent.trim());
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(text);
        button.textContent = "Selected: press Ctrl+C";
      }
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
  }

  document.getElementById("save").addEventListener("click", () => {
    const text = JSON.stringify(JSON.parse(document.getElementById("tables").textContent), null, 2);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = "ovseg-report.json";
    link.click();
    URL.revokeObjectURL(link.href);
  });

  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((details) => (details.open = true));
  });
  addEventListener("afterprint", () => closed.forEach((details) => (details.open = false)));
})();
