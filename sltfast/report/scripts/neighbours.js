/** The first words of a passage on one line, after its number and data set. */
function opening(data, item, letters) {
  const { text, set } = data.passages[item];
  return `${item}${set ? ` · ${set}` : ""}: ${text.trim().replace(/\s+/g, " ").slice(0, letters)}`;
}

/** One list of neighbours under its heading; each opens to its text. */
function neighbourList(data, { pole, title, meaning }, found) {
  const mark = make("i");
  mark.style.background = `rgba(var(--${pole}), 0.75)`;
  const box = make("div", "", "", make("h3", "", "", mark, title, make("span", "quiet", meaning)));
  for (const [item, value, error] of found) {
    const { text, set } = data.passages[item];
    const line = make("summary", "", "", make("span", "", plusMinus(value, error)), make("span", "quiet", set ? `${item} · ${set}` : `${item}`),
      make("code", "", text.trim().replace(/\s+/g, " ").slice(0, 90)));
    box.append(make("details", "", "", line, make("blockquote", "", text)));
  }
  if (!found.length) box.append(make("p", "quiet", "none"));
  return box;
}
