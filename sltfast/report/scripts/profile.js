const PROFILED = 24; // components listed, the largest first

/** Every component's χ of one token as bars with errors. */
function showProfile(box, piece, position, found) {
  const known = found.filter(([, value]) => Number.isFinite(value)).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  const heading = make("p", "", "", make("code", "", JSON.stringify(piece)), ` at position ${position}`);
  if (!known.length) {
    box.replaceChildren(heading, make("p", "quiet", "Nothing predicts this token, so no component answers to it."));
    return;
  }
  const limit = Math.abs(known[0][1]) || 1;
  const table = make("table", "bars");
  for (const [name, value, error] of known.slice(0, PROFILED)) {
    const bar = make("i", "stem");
    stem(bar, value / limit, Number.isFinite(error) ? error / limit : 0);
    table.append(make("tr", "", "", make("th", "", name), make("td", "", "", bar), make("td", "number", plusMinus(value, error))));
  }
  const rest = known.length - PROFILED;
  box.replaceChildren(heading, table, rest > 0 ? make("p", "quiet", `${rest} smaller ones are left out`) : "");
}
