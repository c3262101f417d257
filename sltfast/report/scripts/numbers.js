/** A number to some significant digits. */
function spoken(value, digits = 3) {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const decimals = digits - 1 - Math.floor(Math.log10(Math.abs(value)));
  return decimals >= -2 && decimals <= digits + 3 ? value.toFixed(Math.max(0, decimals)) : value.toExponential(digits - 1);
}

/** A value ± its error, both to the place of the error's second digit. */
function plusMinus(value, error) {
  if (!Number.isFinite(value)) return "–";
  if (error === null || !Number.isFinite(error) || error <= 0) return spoken(value);
  const decimals = 1 - Math.floor(Math.log10(error));
  if (decimals > 6 || Math.abs(value) >= 1e7) return `${value.toExponential(2)} ± ${error.toExponential(1)}`;
  return `${value.toFixed(Math.max(0, decimals))} ± ${error.toFixed(Math.max(0, decimals))}`;
}

/** The size below which a share of the finite values lies. */
function quantile(values, share) {
  const sizes = Array.from(values, Math.abs).filter(Number.isFinite).sort((a, b) => a - b);
  return sizes.length ? sizes[Math.min(sizes.length - 1, Math.floor(share * sizes.length))] : 0;
}
