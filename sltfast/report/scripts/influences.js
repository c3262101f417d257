// the matrix of influences, and the neighbours of one passage
class Influences {
  constructor({ roles, data }) {
    this.roles = roles;
    this.data = data;
    this.at = null;
    fill(roles.query, data.rows.map((item) => opening(data, item, 48)));
    roles.query.addEventListener("change", () => this.choose(Number(roles.query.value)));
    if (data.value) this.matrix();
    this.choose(0);
  }

  /** The matrix and what it listens to. */
  matrix() {
    const { data, roles } = this;
    this.value = unpack(data.value).values;
    this.error = data.se && unpack(data.se).values;
    [this.rows, this.columns] = data.value.shape;
    roles.low.textContent = `≤ ${spoken(-data.limit, 2)}`;
    roles.high.textContent = `≥ ${spoken(data.limit, 2)}`;
    const canvas = roles.canvas;
    canvas.style.aspectRatio = `${this.columns} / ${Math.max(this.rows, this.columns / 4)}`;
    canvas.addEventListener("pointermove", (event) => this.point(this.cell(event), event.clientX, event.clientY));
    canvas.addEventListener("pointerleave", () => this.point(null));
    canvas.addEventListener("blur", () => this.point(null));
    canvas.addEventListener("click", (event) => this.choose(this.cell(event)[0]));
    canvas.addEventListener("keydown", (event) => this.walk(event));
    repaint.push(() => this.paint());
  }

  paint() {
    const { context, width, height } = sharp(this.roles.canvas);
    const [wide, tall] = [width / this.columns, height / this.rows];
    const gap = wide > 8 ? 1 : 0;
    const poles = [colour("below"), colour("above")];
    for (let row = 0; row < this.rows; row++) {
      for (let column = 0; column < this.columns; column++) {
        const value = this.value[row * this.columns + column];
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
    const { data } = this;
    showTip(x ?? box.left + ((column + 0.5) * box.width) / this.columns, y ?? box.top + ((row + 0.5) * box.height) / this.rows,
      { strong: plusMinus(this.value[index], this.error ? this.error[index] : null) },
      `\n${opening(data, data.rows[row], 60)}\n${opening(data, data.columns[column], 60)}`);
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
    const { data, roles } = this;
    this.query = query;
    roles.query.value = query;
    roles.self.textContent = data.passages[data.rows[query]].text;
    roles.lists.replaceChildren(...data.sides.map((one) => neighbourList(data, one, data.nearest[query][one.side])));
    if (data.value) this.paint();
  }
}

parts("influences").forEach((part) => new Influences(part));
