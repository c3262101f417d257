// what the page holds: tokens' texts, and each section's numbers
const report = JSON.parse(document.getElementById("report-data").textContent);

/** The numbers of a packed array, with its shape. */
function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed.float32), (letter) => letter.charCodeAt(0));
  return { shape: packed.shape, values: new Float32Array(bytes.buffer) };
}

/** Every part of one kind, with its section's data and its elements by role. */
function parts(kind) {
  return [...document.querySelectorAll(`[data-part="${kind}"]`)].map((root) => {
    const roles = {};
    for (const element of root.querySelectorAll("[data-role]")) roles[element.dataset.role] = element;
    return { root, roles, data: report.sections[root.dataset.of] };
  });
}

/** Fill a select with texts; the values are their numbers. */
function fill(select, texts) {
  select.replaceChildren(...texts.map((text, index) => new Option(text, index)));
}

/** An element with a class, a text and children; texts never become markup. */
function make(tag, className = "", text = "", ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  element.append(...children);
  return element;
}
