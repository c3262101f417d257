// one box that says what is pointed at, for the eye and for a screen reader
const tip = document.getElementById("tip");

/** Show lines beside a point of the window; a part may be {strong: text}. */
function showTip(x, y, ...said) {
  tip.replaceChildren(...said.map((part) => (typeof part === "string" ? part : make("b", "", part.strong))));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(6, Math.min(x + 14, innerWidth - width - 8))}px`;
  tip.style.top = `${y + 18 + height > innerHeight ? Math.max(4, y - height - 12) : y + 18}px`;
}

/** Show a tip beside an element. */
function tipAt(element, ...said) {
  const box = element.getBoundingClientRect();
  showTip(box.left, box.bottom - 12, ...said);
}

function hideTip() {
  tip.hidden = true;
}

addEventListener("scroll", hideTip, { passive: true });
addEventListener("keydown", (event) => event.key === "Escape" && hideTip());
