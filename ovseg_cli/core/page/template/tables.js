"use strict";
// Tables: headers that sort, boxes that filter.
(() => {
  const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

  // A number where the cell has one, its text else, null where there is nothing.
  function valueOf(row, place) {
    const cell = row.cells[place];
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    return "missing" in cell.dataset ? null : cell.textContent.trim();
  }

  function compared(a, b) {
    return typeof a === "number" && typeof b === "number" ? a - b : collator.compare(String(a), String(b));
  }

  function sorted(rows, place, direction) {
    if (direction === "none") return rows;
    const sign = direction === "ascending" ? 1 : -1;
    const keyed = rows.map((row) => [valueOf(row, place), row]);
    keyed.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * compared(a, b)));
    return keyed.map(([, row]) => row);
  }

  // Numbers start with the largest, texts with A; the third press restores the order of the page.
  function makeSortable(table) {
    const rows = [...table.tBodies[0].rows];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, place) => {
      const cycle = head.classList.contains("number") ? ["descending", "ascending", "none"] : ["ascending", "descending", "none"];
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const next = cycle[(cycle.indexOf(head.getAttribute("aria-sort")) + 1) % cycle.length];
        heads.forEach((other) => other.setAttribute("aria-sort", other === head ? next : "none"));
        table.tBodies[0].append(...sorted(rows, place, next));
      });
    });
  }

  function makeFilter(box) {
    const place = box.dataset.filter;
    const table = document.querySelector(`table[data-table="${place}"]`);
    const choice = document.querySelector(`select[data-set="${place}"]`);
    const count = document.querySelector(`output[data-count="${place}"]`);
    const rows = [...table.tBodies[0].rows];
    const setPlace = [...table.tHead.rows[0].cells].findIndex((head) => head.dataset.key === "set");
    function apply() {
      const wanted = box.value.trim().toLowerCase();
      const set = choice ? choice.value : "";
      for (const row of rows) {
        const name = row.querySelector("th").textContent.toLowerCase();
        row.hidden = !name.includes(wanted) || (set !== "" && row.cells[setPlace].textContent.trim() !== set);
      }
      const left = rows.filter((row) => !row.hidden).length;
      count.textContent = left === rows.length ? `${left} classes` : `${left} of ${rows.length} classes`;
    }
    box.addEventListener("input", apply);
    if (choice) choice.addEventListener("change", apply);
  }

  document.querySelectorAll("table.data").forEach(makeSortable);
  document.querySelectorAll("input[data-filter]").forEach(makeFilter);
})();
