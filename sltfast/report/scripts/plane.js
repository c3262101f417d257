// a scatter plot of tokens; its texts are those of the passages above
const REACH = 14; // pixels from the pointer to the dot it means
const AROUND = 7; // tokens of context on the left

class Plane {
  constructor({ roles, data }) {
    this.roles = roles;
    this.text = passages.get(data.text);
    this.places = data.places;
    const { shape, values } = unpack(data.points);
    this.columns = data.axes.map((_, axis) => values.filter((_, index) => index % shape[1] === axis));
    for (const [role, axis] of [["x", 0], ["y", 1]]) {
      fill(roles[role], data.axes);
      roles[role].value = axis;
      roles[role].addEventListener("change", () => this.paint());
    }
    fill(roles.colour, ["data set", ...this.text.components]);
    roles.colour.addEventListener("change", () => this.paint());
    const canvas = roles.canvas;
    canvas.addEventListener("pointermove", (event) => this.point(this.nearest(event), event.clientX, event.clientY));
    canvas.addEventListener("pointerleave", () => this.point(-1));
    canvas.addEventListener("click", (event) => this.open(this.nearest(event)));
    canvas.addEventListener("keydown", (event) => this.walk(event));
    canvas.addEventListener("blur", () => this.point(-1));
    this.at = -1;
    repaint.push(() => this.paint());
  }

  scale(values, from, to) {
    let [low, high] = [Infinity, -Infinity];
    for (const value of values) { low = Math.min(low, value); high = Math.max(high, value); }
    const room = 0.05 * (high - low) || 1;
    return (value) => from + ((to - from) * (value - low + room)) / (high - low + 2 * room);
  }

  paint() {
    const { context, width, height } = sharp(this.roles.canvas);
    const across = this.columns[Number(this.roles.x.value)];
    const up = this.columns[Number(this.roles.y.value)];
    const x = this.scale(across, 4, width - 4);
    const y = this.scale(up, height - 4, 4);
    this.dots = this.places.map((_, index) => [x(across[index]), y(up[index])]);
    context.strokeStyle = colour("line");
    context.beginPath();
    context.moveTo(x(0), 0); context.lineTo(x(0), height);
    context.moveTo(0, y(0)); context.lineTo(width, y(0));
    context.stroke();
    const ink = this.inks();
    const radius = this.places.length > 1200 ? 2.2 : 3;
    this.dots.forEach(([left, top], index) => {
      context.fillStyle = ink(index);
      context.globalAlpha = 0.72;
      context.beginPath();
      context.arc(left, top, radius, 0, 7);
      context.fill();
    });
    context.globalAlpha = 1;
    if (this.at >= 0) {
      context.strokeStyle = colour("ink");
      context.lineWidth = 2;
      context.beginPath();
      context.arc(...this.dots[this.at], radius + 3, 0, 7);
      context.stroke();
    }
  }

  /** The colour of each dot, and the key that explains it. */
  inks() {
    const component = Number(this.roles.colour.value) - 1;
    const key = this.roles.key;
    if (component < 0) {
      key.replaceChildren(...this.text.datasets.map((one, index) => {
        const entry = make("span", `c${index % 8}`, "", make("i"), make("span", "", one.name));
        return entry;
      }));
      const colours = this.text.datasets.map((_, index) => colour(`c${index % 8}`));
      return (index) => colours[this.places[index][0]];
    }
    const limit = this.text.limits[component] || 1;
    key.textContent = `χ from ${spoken(-limit, 2)} (blue) to ${spoken(limit, 2)} (red)`;
    const poles = { above: colour("above"), below: colour("below") };
    return (index) => {
      const [dataset, row, position] = this.places[index];
      const share = this.text.datasets[dataset].value(row, position, component) / limit;
      return `rgba(${share < 0 ? poles.below : poles.above}, ${(0.12 + 0.88 * Math.min(1, Math.abs(share))).toFixed(2)})`;
    };
  }

  nearest(event) {
    const box = this.roles.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let [best, least] = [-1, REACH ** 2];
    this.dots.forEach(([left, top], index) => {
      const apart = (left - x) ** 2 + (top - y) ** 2;
      if (apart < least) [best, least] = [index, apart];
    });
    return best;
  }

  point(index, x, y) {
    if (index !== this.at) { this.at = index; this.paint(); }
    if (index < 0) return hideTip();
    const box = this.roles.canvas.getBoundingClientRect();
    const [left, top] = this.dots[index];
    const [dataset, row, position] = this.places[index];
    const one = this.text.datasets[dataset];
    const piece = (at) => (one.tokens[row][at] === undefined ? "" : report.pieces[one.tokens[row][at]]);
    const before = Array.from({ length: AROUND }, (_, back) => piece(position - AROUND + back)).join("");
    const after = piece(position + 1) + piece(position + 2);
    showTip(x ?? box.left + left, y ?? box.top + top, `${one.name}, row ${one.rows[row]}, position ${position}\n…${before}`,
      { strong: `[${piece(position)}]` }, `${after}…`);
  }

  open(index) {
    if (index >= 0) this.text.show(...this.places[index]);
  }

  walk(event) {
    if (event.key === "Enter" && this.at >= 0) return this.open(this.at);
    const [axis, way] = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, -1], ArrowDown: [1, 1] }[event.key] || [];
    if (way === undefined) return;
    event.preventDefault();
    const order = this.dots.map((_, index) => index).sort((a, b) => this.dots[a][axis] - this.dots[b][axis]);
    const place = this.at < 0 ? Math.floor(order.length / 2) : order.indexOf(this.at) + way;
    this.point(order[Math.max(0, Math.min(order.length - 1, place))]);
  }
}

parts("plane").forEach((part) => new Plane(part));
