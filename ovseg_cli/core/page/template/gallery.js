"use strict";
// Pictures: a slider between any two layers, their order, and the class names under the pointer.
(() => {
  const HALF = 128;

  function makeGallery(gallery) {
    const models = JSON.parse(gallery.dataset.models);
    const cards = [...gallery.querySelectorAll(".card")];
    const control = (role) => gallery.querySelector(`[data-role="${role}"]`);
    const layersOf = (card) => [...card.querySelectorAll(".layer")];

    function choose() {
      for (const layer of cards.flatMap(layersOf)) {
        layer.classList.toggle("is-left", layer.dataset.layer === control("left").value);
        layer.classList.toggle("is-right", layer.dataset.layer === control("right").value);
      }
    }

    function move(card, at) {
      card.querySelector(".wipe").value = at;
      card.querySelector(".wipe").setAttribute("aria-valuetext", `${at} % left, ${100 - at} % right`);
      card.querySelector(".stage").style.setProperty("--at", `${at}%`);
    }

    // Pictures without a score come last.
    function order() {
      const [by, model] = control("order").value.split(" ");
      const sign = by === "low" ? 1 : -1;
      const keyOf = (card) => (by === "disagreement" ? Number(card.dataset.disagreement) : JSON.parse(card.dataset.scores)[model]);
      const keyed = cards.map((card) => [keyOf(card), card]);
      keyed.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * (a - b)));
      gallery.querySelector(".pictures").append(...keyed.map(([, card]) => card));
    }

    function nameOf(layer) {
      return { picture: "picture", truth: "ground truth" }[layer.dataset.layer] ?? models[layer.dataset.layer];
    }

    function tell(card, event) {
      const box = event.currentTarget.getBoundingClientRect();
      const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
      if (x < 0 || x >= 1 || y < 0 || y >= 1) return;
      const wanted = new Set(["truth", control("left").value, control("right").value]);
      const layers = layersOf(card).filter((layer) => layer.dataset.layer !== "picture" && wanted.has(layer.dataset.layer));
      const names = layers.map((layer) => `${nameOf(layer)}: ${classAt(card, layer.querySelector("img"), x, y)}`);
      card.querySelector(".here").textContent = names.join(" · ");
    }

    for (const card of cards) {
      const wipe = card.querySelector(".wipe");
      const image = card.querySelector("img");
      card.querySelector(".stage").style.setProperty("--ratio", image.getAttribute("width") / image.getAttribute("height"));
      move(card, 50);
      wipe.addEventListener("input", () => {
        const moved = control("together").checked ? cards : [card];
        moved.forEach((other) => move(other, Number(wipe.value)));
      });
      wipe.addEventListener("pointermove", (event) => tell(card, event));
      card.querySelector(".enlarge").addEventListener("click", (event) => {
        const isLarge = card.classList.toggle("large");
        event.currentTarget.setAttribute("aria-pressed", isLarge);
        event.currentTarget.textContent = isLarge ? "Smaller" : "Enlarge";
      });
    }
    control("left").addEventListener("change", choose);
    control("right").addEventListener("change", choose);
    control("order").addEventListener("change", order);
    control("apart").addEventListener("change", (event) => gallery.classList.toggle("live", !event.target.checked));
    control("opacity").addEventListener("input", (event) => gallery.style.setProperty("--opacity", event.target.value / 100));
    gallery.classList.add("live");
    choose();
  }

  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const pen = canvas.getContext("2d", { willReadFrequently: true });

  // The legend's class whose colour is nearest to the pixel at (x, y), shares of width and height.
  function classAt(card, image, x, y) {
    pen.clearRect(0, 0, 1, 1);
    pen.drawImage(image, -Math.floor(x * image.naturalWidth), -Math.floor(y * image.naturalHeight));
    const [red, green, blue, alpha] = pen.getImageData(0, 0, 1, 1).data;
    if (alpha < HALF) return "not labelled";
    let best = ["not labelled", Infinity];
    for (const swatch of card.querySelectorAll(".swatch")) {
      const [r, g, b] = swatch.dataset.color.split(",").map(Number);
      const distance = (r - red) ** 2 + (g - green) ** 2 + (b - blue) ** 2;
      if (distance < best[1]) best = [swatch.textContent, distance];
    }
    return best[0];
  }

  document.querySelectorAll(".gallery").forEach(makeGallery);
})();
