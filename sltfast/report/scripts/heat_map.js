// a table of shaded cells: hover or walk with the arrow keys
for (const table of document.querySelectorAll('[data-part="heat-map"]')) {
  const rows = [...table.tBodies[0].rows].map((row) => [...row.querySelectorAll(".shade")]);
  const paint = () => {
    for (const cell of rows.flat()) cell.style.background = shade(Number(cell.dataset.share) * (cell.classList.contains("unsure") ? 0.35 : 1));
  };
  repaint.push(paint);
  const tell = (event) => {
    const cell = event.target.closest(".shade");
    if (cell) tipAt(cell, cell.dataset.tip);
  };
  table.addEventListener("pointerover", tell);
  table.addEventListener("focusin", tell);
  table.addEventListener("pointerleave", hideTip);
  table.addEventListener("focusout", hideTip);
  table.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    const row = rows.findIndex((cells) => cells.includes(event.target));
    const next = rows[row + step[0]]?.[rows[row].indexOf(event.target) + step[1]];
    if (!next) return;
    event.preventDefault();
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
}
