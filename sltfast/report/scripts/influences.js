// the matrix of influences, and the neighbours of one passage
class Influences {
  constructor({ roles, data }) {
    this.roles = roles;
    this.data = data;
    this.value = unpack(data.value);
    this.se = data.se && unpack(data.se);
    [this.rows, this.columns] = this.value.shape;
    this.at = null;
    const label = (row) => `${row}${this.set(row)}: ${data.passages[row].text.trim().replace(/\s+/g, " ").slice(0, 48)}`;
    fill(roles.query, Array.from({ length: this.rows }, (_, row) => label(row)));
    roles.query.addEventListener("change", () => this.choose(Number(roles.query.value)));
    roles.low.textContent = `≤ ${spoken(-data.limit, 2)}`;
    roles.high.textContent = `≥ ${spoken(data.limit, 2)}`;
    const canvas = roles.canvas;
    canvas.style.aspectRatio = `${this.columns} / ${this.rows}`;
    canvas.addEventListener("pointermove", (event) => this.point(this.cell(event), event.clientX, event.clientY));
    canvas.addEventListener("pointerleave", () => this.point(null));
    canvas.addEventListener("blur", () => this.point(null));
    canvas.addEventListener("click", (event) => this.choose(this.cell(event)[0]));
    canvas.addEventListener("keydown", (event) => this.walk(event));
    repaint.push(() => this.paint());
    this.choose(0);
  }

  set(item) {
    const name = this.data.passages[item].set;
    return name ? ` · ${name}` : "";
  }

  paint() {
    const { context, width, height } = sharp(this.roles.canvas);
    const [wide, tall] = [width / this.columns, height / this.rows];
    const gap = wide > 8 ? 1 : 0;
    const poles = [colour("below"), colour("above")];
    for (let row = 0; row < this.rows; row++) {
      for (let column = 0; column < this.columns; column++) {
        const value = this.value.values[row * this.columns + column];
        if (!Number.isFinite(value)) continue;
        const share = Math.min(1, Math.abs(value) / (this.data.limit || 1));
        context.fillStyle = `rgba(${poles[value < 0 ? 0 : 1]}, ${(0.04 + 0.9 * share).toFixed(3)})`;
        context.fillRect(column * wide, row * tall, wide - gap, tall - gap);
      }
    }
    context.strokeStyle = colour("ink");
    context.lineWidth = 1.5;
    context.strokeRect(0.75, this.query * tall + 0.75, width - 1.5, Math.max(2, tall - 1.5));
    if (this.at) context.strokeRect(this.at[1] * wide, this.at[0] * tall, Math.max(3, wide - gap), Math.max(3, tall - gap));
  }

  cell(event) {
    const box = this.roles.canvas.getBoundingClientRect();
    const clip = (share, count) => Math.max(0, Math.min(count - 1, Math.floor(share * count)));
    return [clip((event.clientY - box.top) / box.height, this.rows), clip((event.clientX - box.left) / box.width, this.columns)];
  }

  point(cell, x, y) {
    if (String(cell) !== String(this.at)) { this.at = cell; this.paint(); }
    if (!cell) return hideTip();
    const [row, column] = cell;
    const index = row * this.columns + column;
    const box = this.roles.canvas.getBoundingClientRect();
    const start = (item) => `${item}${this.set(item)}: ${this.data.passages[item].text.trim().replace(/\s+/g, " ").slice(0, 60)}`;
    showTip(x ?? box.left + ((column + 0.5) * box.width) / this.columns, y ?? box.top + ((row + 0.5) * box.height) / this.rows,
      { strong: plusMinus(this.value.values[index], this.se ? this.se.values[index] : null) }, `\n${start(row)}\n${start(column)}`);
  }

  walk(event) {
    const [row, column] = this.at || [this.query, 0];
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (event.key === "Enter") return this.choose(row);
    if (!step) return;
    event.preventDefault();
    const clip = (value, count) => Math.max(0, Math.min(count - 1, value));
    this.point([clip(row + step[0], this.rows), clip(column + step[1], this.columns)]);
  }

  /** The neighbours of one row. */
  choose(query) {
    this.query = query;
    this.roles.query.value = query;
    this.roles.self.textContent = this.data.passages[query].text;
    const [above, below] = this.data.nearest[query];
    this.roles.lists.replaceChildren(this.list("Largest positive", "above", above), this.list("Largest negative", "below", below));
    this.paint();
  }

  list(title, pole, found) {
    const mark = make("i");
    mark.style.background = `rgba(var(--${pole}), 0.75)`;
    const box = make("div", "", "", make("h3", "", "", mark, title));
    for (const [item, value, error] of found) {
      const text = this.data.passages[item].text;
      const line = make("summary", "", "", make("span", "", plusMinus(value, error)), make("span", "quiet", `${item}${this.set(item)}`),
        make("code", "", text.trim().replace(/\s+/g, " ").slice(0, 90)));
      box.append(make("details", "", "", line, make("blockquote", "", text)));
    }
    if (!found.length) box.append(make("p", "quiet", "none"));
    return box;
  }
}

parts("influences").forEach((part) => new Influences(part));
