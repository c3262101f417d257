const STRONGEST = 0.78; // of a shade's opacity, so that text stays readable on it

/** The shade of a share in −1 … 1: transparent at 0. */
function shade(share) {
  const size = Math.min(1, Math.abs(share));
  return `rgba(${colour(share < 0 ? "below" : "above")}, ${(STRONGEST * size ** 0.85).toFixed(3)})`;
}

/** Bars that grow from the middle: their share in −1 … 1, and an error bar if there is one. */
function stem(element, share, error = 0) {
  const clip = (value) => Math.max(-1, Math.min(1, value));
  const middle = (value) => 50 + 50 * clip(value);
  element.style.setProperty("--from", `${Math.min(50, middle(share))}%`);
  element.style.setProperty("--long", `${Math.abs(middle(share) - 50)}%`);
  element.style.setProperty("--shade", `rgba(var(--${share < 0 ? "below" : "above"}), 0.72)`);
  if (error > 0) {
    element.style.setProperty("--low", `${middle(share - error)}%`);
    element.style.setProperty("--wide", `${middle(share + error) - middle(share - error)}%`);
  }
}

document.querySelectorAll(".loadings .stem").forEach((element) => stem(element, Number(element.dataset.share)));

/** A canvas at the screen's own resolution: its context, width and height in CSS pixels. */
function sharp(canvas) {
  const ratio = devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}
