// text whose tokens are shaded by one component's χ
const AT_ONCE = 4000; // tokens of short passages that are laid out together
const MARKS = { "\n": "⏎\n", "\t": "⇥\t" };

/** One data set's χ and errors, by passage, position and component. */
function answers(dataset) {
  const sus = unpack(dataset.sus);
  const se = unpack(dataset.se);
  const [, length, count] = sus.shape;
  const at = (row, position, component) => (row * length + position) * count + component;
  return {
    ...dataset,
    value: (...place) => sus.values[at(...place)],
    error: (...place) => se.values[at(...place)],
    all: sus.values,
  };
}

class Passages {
  constructor({ roles, data }) {
    this.roles = roles;
    this.components = data.components;
    this.datasets = data.datasets.map(answers);
    this.limits = this.components.map((_, component) =>
      quantile(this.datasets.flatMap((one) => Array.from(one.all.filter((_, index) => index % this.components.length === component))), 0.985));
    fill(roles.component, this.components);
    const first = this.components.findIndex((name) => name !== "full");
    roles.component.value = Math.max(0, first);
    fill(roles.dataset, this.datasets.map((one) => one.name));
    roles.component.addEventListener("change", () => this.paint());
    roles.sure.addEventListener("change", () => this.paint());
    roles.dataset.addEventListener("change", () => { this.choosePassages(); this.lay(); });
    roles.passage.addEventListener("change", () => this.lay());
    for (const kind of ["pointerover", "focusin"]) roles.text.addEventListener(kind, (event) => this.tell(event.target.closest(".t")));
    for (const kind of ["pointerleave", "focusout"]) roles.text.addEventListener(kind, hideTip);
    roles.text.addEventListener("click", (event) => this.choose(event.target.closest(".t")));
    roles.text.addEventListener("keydown", (event) => this.walk(event));
    repaint.push(() => this.paint());
    this.choosePassages();
    this.lay();
  }

  get dataset() { return this.datasets[Number(this.roles.dataset.value)]; }
  get component() { return Number(this.roles.component.value); }

  choosePassages() {
    const rows = this.dataset.rows;
    fill(this.roles.passage, rows.map((row) => `row ${row}`));
    if (rows.length > 1) this.roles.passage.append(new Option(`all ${rows.length}`, "all"));
    const tokens = this.dataset.tokens.reduce((sum, row) => sum + row.length, 0);
    if (rows.length > 1 && tokens <= AT_ONCE) this.roles.passage.value = "all";
  }

  /** The tokens of the chosen passages as elements. */
  lay() {
    const { passage, text } = this.roles;
    const chosen = passage.value === "all" ? this.dataset.rows.keys() : [Number(passage.value)];
    text.replaceChildren(...Array.from(chosen, (row) => this.paragraph(row)));
    text.scrollTop = 0;
    const first = text.querySelector(".t");
    if (first) first.tabIndex = 0;
    this.paint();
  }

  paragraph(row) {
    const paragraph = make("p", "passage", "", make("span", "row", `row ${this.dataset.rows[row]}`));
    this.dataset.tokens[row].forEach((place, position) => {
      const token = make("span", "t");
      for (const letter of report.pieces[place]) {
        if (letter in MARKS) token.append(make("span", "mark", MARKS[letter][0]), letter);
        else token.append(letter);
      }
      token.tabIndex = -1;
      token.dataset.row = row;
      token.dataset.position = position;
      paragraph.append(token);
    });
    return paragraph;
  }

  paint() {
    const { low, high, sure, text } = this.roles;
    const limit = this.limits[this.component] || 1;
    low.textContent = `χ ≤ ${spoken(-limit, 2)}`;
    high.textContent = `≥ ${spoken(limit, 2)}`;
    for (const token of text.querySelectorAll(".t")) {
      const [value, error] = this.answer(token);
      const shown = Number.isFinite(value) && (!sure.checked || Math.abs(value) > 2 * error);
      token.style.background = shown ? shade(value / limit) : "";
    }
  }

  answer(token, component = this.component) {
    const place = [Number(token.dataset.row), Number(token.dataset.position), component];
    return [this.dataset.value(...place), this.dataset.error(...place)];
  }

  piece(token) {
    return report.pieces[this.dataset.tokens[token.dataset.row][token.dataset.position]];
  }

  tell(token) {
    if (!token) return;
    const [value, error] = this.answer(token);
    const said = Number.isFinite(value) ? `χ = ${plusMinus(value, error)}` : "nothing predicts this token";
    tipAt(token, { strong: JSON.stringify(this.piece(token)) }, `  position ${token.dataset.position}\n${this.components[this.component]}: ${said}`);
  }

  choose(token) {
    if (!token) return;
    this.roles.text.querySelectorAll(".chosen").forEach((other) => other.classList.remove("chosen"));
    token.classList.add("chosen");
    const found = this.components.map((name, component) => [name, ...this.answer(token, component)]);
    showProfile(this.roles.profile, this.piece(token), token.dataset.position, found);
  }

  walk(event) {
    const token = event.target.closest(".t");
    if (!token) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.choose(token);
      return;
    }
    const tokens = [...this.roles.text.querySelectorAll(".t")];
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -10, ArrowDown: 10 }[event.key];
    const next = step && tokens[Math.max(0, Math.min(tokens.length - 1, tokens.indexOf(token) + step))];
    if (!next || next === token) return;
    event.preventDefault();
    token.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  /** Show one token, wherever it is. */
  show(dataset, row, position) {
    this.roles.dataset.value = dataset;
    this.choosePassages();
    this.roles.passage.value = row;
    this.lay();
    const token = this.roles.text.querySelectorAll(".t")[position];
    this.choose(token);
    this.roles.text.closest("section").scrollIntoView();
    token.focus({ preventScroll: true });
    token.scrollIntoView({ block: "nearest" });
  }
}

const passages = new Map(parts("passages").map((part) => [part.root.dataset.of, new Passages(part)]));
