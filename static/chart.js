// chart.js: histograms and the strength of a feature over a text, as plain SVG. A chart carries its sum in words
// for those who do not see it, and each bar its numbers for the tooltip.

import { count, h, num, percent, svg } from './dom.js';

const WIDTH = 400;

/** Drawn in a fixed space and stretched to its place: words stand in HTML below, where they keep their size. */
function frame(height, label, className, ...children) {
  return svg('svg', { class: `chart ${className ?? ''}`, viewBox: `0 0 ${WIDTH} ${height}`, height, preserveAspectRatio: 'none', role: 'img', 'aria-label': label }, children);
}

/** One bar with a hit area over the whole height, so that small bars can be pointed at. */
function bar(x, width, top, bottom, tip) {
  const hit = svg('rect', { class: 'hit', x, y: 0, width, height: bottom });
  hit.dataset.v = tip;
  return svg('g', {}, svg('rect', { x: x + width * 0.07, y: top, width: width * 0.86, height: Math.max(0, bottom - top) }), hit);
}

function underAxis(left, right, zero) {
  const middle = zero > 0.12 && zero < 0.88 ? h('span', { class: 'middle' }, '0') : null;
  if (middle) middle.style.left = `${100 * zero}%`;
  return h('div', { class: 'ends', 'aria-hidden': 'true' }, h('span', {}, left), middle, h('span', {}, right));
}

/** heights[i] stands at values[i], in order and equally spaced. `log`: heights by logarithm, for counts that fall
 * off by powers of ten. `ends` are the words under the axis, by default the first and last value; `tip(i)` words the
 * tooltip of a bar. */
export function histogram({ heights, values, label, caption, log, warm, height = 110, unit = 'tokens', format = num, ends, tip }) {
  const scale = (n) => (log ? Math.log1p(n) : n);
  const most = Math.max(...heights.map(scale), 1e-12);
  const step = WIDTH / heights.length;
  const bars = heights.map((n, i) => n > 0 && bar(i * step, step, height - Math.max(1.5, (scale(n) / most) * (height - 4)), height,
    tip ? tip(i) : `${format(values[i])}: ${count(n)} ${unit}`));
  const first = values[0], last = values.at(-1);
  const zero = first < 0 && last > 0 ? (0.5 + (-first / (last - first)) * (heights.length - 1)) / heights.length : null;
  const [left, right] = ends ?? [format(first), format(last)];
  return h('figure', {},
    frame(height, `${label}: from ${left} to ${right}, most at ${format(values[heights.indexOf(Math.max(...heights))])}`, warm && 'warm',
      svg('path', { class: 'axis', d: `M0 ${height}H${WIDTH}` }), zero !== null && svg('path', { class: 'zero', d: `M${zero * WIDTH} 0V${height}` }), bars),
    underAxis(left, right, zero), caption && h('figcaption', {}, caption));
}

/** Firing rates of a dictionary by their power of ten. Rates that are 0 or unknown are told in words. */
export function densityChart(rates) {
  const alive = rates.filter((rate) => rate > 0);
  const dead = rates.filter((rate) => rate === 0).length;
  if (!alive.length) return null;
  const low = Math.floor(Math.log10(Math.min(...boundsOf(alive))));
  const bins = Math.max(12, -low * 8);
  const heights = new Array(bins).fill(0);
  for (const rate of alive) heights[Math.min(bins - 1, Math.floor((1 - Math.log10(rate) / low) * bins))]++;
  const values = heights.map((_, i) => 10 ** (low * (1 - (i + 0.5) / bins)));
  return histogram({ heights, values, label: 'Firing rates of the features', unit: 'features', format: percent, height: 160, ends: [percent(10 ** low), '100 %'],
    caption: `${count(alive.length)} features by the share of tokens they fire on (logarithmic)${dead ? `; ${count(dead)} never fired` : ''}.` });
}

/** Smallest and largest without spreading thousands of arguments. */
function boundsOf(list) {
  return [list.reduce((a, b) => Math.min(a, b)), list.reduce((a, b) => Math.max(a, b))];
}

/** A value a token, as bars. */
export function overText(tokens, values, label) {
  return histogram({ heights: values.map((v) => Math.max(0, v)), values: values.map((_, i) => i), label, warm: true, height: 110,
    format: (i) => `token ${i}`, tip: (i) => `${tokens[i]}\n${num(values[i], 4)}`, ends: ['first token', 'last token'] });
}
