// mapview.js: points on a canvas that is zoomed, dragged, pointed at and walked over. Tens of thousands are one frame: points are
// drawn colour by colour, those outside are left out, and what is under the pointer is looked up by squares.

import { h, say, tipAt } from './dom.js';

const MARGIN = 16, REACH = 14, DRAG = 4; // CSS pixels: around the points; from which one is pointed at; from which a press is a drag
const CLOSEST = 64, STEP = 1.5; // times; of a key or button
const STEPS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };

/* ---- places ---- */

/** Where points stand while all of them are seen, in CSS pixels, both axes with the same scale: bx, by of each. */
function fit(points, width, height) {
  const bounds = (name) => points.reduce(([low, high], p) => [Math.min(low, p[name]), Math.max(high, p[name])], [Infinity, -Infinity]);
  const [left, right] = bounds('x'), [top, bottom] = bounds('y');
  const scale = Math.min((width - 2 * MARGIN) / Math.max(right - left, 1e-9), (height - 2 * MARGIN) / Math.max(bottom - top, 1e-9));
  for (const p of points) {
    p.bx = width / 2 + (p.x - (left + right) / 2) * scale;
    p.by = height / 2 + (p.y - (top + bottom) / 2) * scale;
  }
}

/** The points by squares, a few in each: nearest(x, y, most) looks at those within reach only. */
export function squares(points, width, height) {
  const side = Math.max(2, Math.sqrt((2 * width * height) / Math.max(points.length, 1)));
  const columns = Math.ceil(width / side) + 1, rows = Math.ceil(height / side) + 1;
  const column = (x) => Math.max(0, Math.min(columns - 1, Math.floor(x / side))), row = (y) => Math.max(0, Math.min(rows - 1, Math.floor(y / side)));
  const start = new Int32Array(columns * rows + 1), order = new Int32Array(points.length);
  const squareOf = (p) => row(p.by) * columns + column(p.bx);
  for (const p of points) start[squareOf(p) + 1]++;
  for (let i = 1; i < start.length; i++) start[i] += start[i - 1];
  const next = start.slice();
  points.forEach((p, i) => { order[next[squareOf(p)]++] = i; });
  return (x, y, most) => {
    let best = null, least = most * most;
    for (let r = row(y - most); r <= row(y + most); r++)
      for (let i = start[r * columns + column(x - most)]; i < start[r * columns + column(x + most) + 1]; i++) {
        const p = points[order[i]], far = (p.bx - x) ** 2 + (p.by - y) ** 2;
        if (far < least) [best, least] = [p, far];
      }
    return best;
  };
}

/** The next point in a direction: near, and not much to the side. */
function beside(points, from, [dx, dy]) {
  let best = null, least = Infinity;
  for (const p of points) {
    const along = (p.bx - from.bx) * dx + (p.by - from.by) * dy, aside = Math.abs((p.bx - from.bx) * dy) + Math.abs((p.by - from.by) * dx);
    if (along > 1e-3 && aside <= along * 1.5 && along + 2 * aside < least) [best, least] = [p, along + 2 * aside];
  }
  return best;
}

/** What is seen: `times` as large, with the place (x, y) of the whole in its middle. It never leaves the whole. */
function viewOf() {
  const view = { times: 1, x: 0, y: 0, width: 0, height: 0 };
  const keep = () => {
    for (const [at, size] of [['x', view.width], ['y', view.height]]) view[at] = Math.max(size / 2 / view.times, Math.min(size - size / 2 / view.times, view[at]));
  };
  return Object.assign(view, {
    resize(width, height) {
      const [x, y] = view.width ? [view.x / view.width, view.y / view.height] : [0.5, 0.5];
      Object.assign(view, { width, height, x: x * width, y: y * height });
      keep();
    },
    /** So large, with the place (bx, by) of the whole at (sx, sy) of the screen. */
    hold(times, bx, by, sx, sy) {
      view.times = Math.max(1, Math.min(CLOSEST, times));
      if (view.times < 1.01) view.times = 1;
      view.x = bx - (sx - view.width / 2) / view.times;
      view.y = by - (sy - view.height / 2) / view.times;
      keep();
    },
    /** By a factor, about a place on the screen that stays where it is. */
    zoom(factor, sx = view.width / 2, sy = view.height / 2) { view.hold(view.times * factor, view.whereX(sx), view.whereY(sy), sx, sy); },
    move(dx, dy) { view.x -= dx / view.times; view.y -= dy / view.times; keep(); },
    go(bx, by) { view.x = bx; view.y = by; keep(); },
    screenX: (bx) => view.width / 2 + (bx - view.x) * view.times,
    screenY: (by) => view.height / 2 + (by - view.y) * view.times,
    whereX: (sx) => view.x + (sx - view.width / 2) / view.times,
    whereY: (sy) => view.y + (sy - view.height / 2) / view.times,
    has: (p, edge) => Math.abs(view.screenX(p.bx) - view.width / 2) <= view.width / 2 - edge && Math.abs(view.screenY(p.by) - view.height / 2) <= view.height / 2 - edge,
  });
}

/* ---- drawing ---- */

const sizeOf = (n) => (n > 12000 ? 1 : n > 5000 ? 1.5 : n > 1000 ? 2.2 : 3.2);

/** The points of each colour, so that it is set once. */
function byColour(points, colour) {
  const layers = new Map();
  for (const p of points) {
    const c = colour(p);
    (layers.get(c) ?? layers.set(c, []).get(c)).push(p);
  }
  return layers;
}

/** A disc to be copied: much quicker than a path each. */
function discOf(colour, size) {
  const whole = Math.ceil(2 * size) + 2, disc = h('canvas', { width: whole, height: whole }), context = disc.getContext('2d');
  context.fillStyle = colour;
  context.beginPath();
  context.arc(whole / 2, whole / 2, size, 0, 7);
  context.fill();
  return disc;
}

/** Small points are squares on whole pixels, larger ones discs: sizes in CSS pixels, `dense` pixels each. */
function drawLayers(context, layers, view, radius, dense) {
  const { times } = view, left = (view.x - view.width / 2 / times), top = (view.y - view.height / 2 / times), scale = times * dense;
  const size = radius * dense, edge = size + 1, right = context.canvas.width + edge, bottom = context.canvas.height + edge;
  const square = size < 1.8, side = Math.max(1, Math.round(2 * size));
  for (const [colour, points] of layers) {
    const disc = square ? null : discOf(colour, size), half = disc && disc.width / 2;
    context.fillStyle = colour;
    for (const p of points) {
      const x = (p.bx - left) * scale, y = (p.by - top) * scale;
      if (x < -edge || y < -edge || x > right || y > bottom) continue;
      if (disc) context.drawImage(disc, Math.round(x - half), Math.round(y - half));
      else context.fillRect(Math.round(x - size), Math.round(y - size), side, side);
    }
  }
}

/* ---- the view ---- */

const pinchOf = (a, b) => ({ x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, apart: Math.max(1, Math.hypot(a.x - b.x, a.y - b.y)) });

/**
 * Points {x, y}, at least one. `wordsOf(point)` stands beside a point, `open(point)` is called for one that is pressed.
 * Returns {node, repaint({colour: point -> CSS colour, found: points that stand out | null}), goTo(point)}.
 */
export function mapView(points, { label, wordsOf, open }) {
  const view = viewOf();
  const canvas = h('canvas', { 'aria-hidden': 'true' }), mark = h('i', { class: 'here', hidden: true, 'aria-hidden': 'true' });
  const host = h('div', { class: 'map', tabindex: 0, role: 'application', 'aria-label': `${label}; arrow keys go from point to point, Enter opens one, plus and minus zoom, 0 shows all` }, canvas, mark);
  const whole = h('button', { type: 'button', 'aria-label': 'Show the whole map', title: 'Show the whole map (0)', onclick: () => zoom(0) }, '1×');
  const control = h('div', { class: 'zoom', role: 'group', 'aria-label': 'Zoom' },
    h('button', { type: 'button', 'aria-label': 'Zoom in', title: 'Zoom in (+)', onclick: () => zoom(STEP) }, '+'),
    h('button', { type: 'button', 'aria-label': 'Zoom out', title: 'Zoom out (-)', onclick: () => zoom(1 / STEP) }, '−'), whole);
  let layers = new Map(), marked = null, found = null, among = points, nearest = null;
  let chosen = null, frame = 0, waiting = null;

  const place = () => {
    const seen = chosen && view.has(chosen, 0);
    mark.hidden = !seen;
    host.classList.toggle('pointed', !!chosen);
    if (seen) {
      mark.style.left = `${view.screenX(chosen.bx)}px`;
      mark.style.top = `${view.screenY(chosen.by)}px`;
      mark.dataset.v = wordsOf(chosen);
    }
    tipAt(seen ? mark : null);
  };
  const choose = (point, aloud) => {
    chosen = point;
    if (point && !view.has(point, MARGIN / 2)) { view.go(point.bx, point.by); later(); }
    place();
    if (point && aloud) say(mark.dataset.v.replaceAll('\n', ': '));
  };
  const draw = () => {
    frame = 0;
    if (!view.width) return; // not laid out yet
    const dense = devicePixelRatio || 1, context = canvas.getContext('2d');
    const width = Math.round(view.width * dense), height = Math.round(view.height * dense);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    context.clearRect(0, 0, width, height);
    const radius = Math.min(6, sizeOf(points.length) * Math.sqrt(view.times));
    context.globalAlpha = found ? 0.18 : 0.85;
    drawLayers(context, layers, view, radius, dense);
    context.globalAlpha = 1;
    if (marked) drawLayers(context, marked, view, radius + 1.6, dense);
    host.classList.toggle('closer', view.times > 1);
    whole.disabled = view.times === 1;
    whole.textContent = `${view.times < 9.95 ? Number(view.times.toFixed(1)) : Math.round(view.times)}×`;
  };
  const later = () => { frame ||= requestAnimationFrame(draw); };
  /** By a factor; 0 shows all. A key zooms about the point it is at. */
  const zoom = (factor) => {
    const about = chosen && view.has(chosen, 0) ? [view.screenX(chosen.bx), view.screenY(chosen.by)] : [];
    view.zoom(factor || 1e-9, ...about);
    later();
    place();
    say(view.times === 1 ? 'the whole map' : `${whole.textContent = `${Number(view.times.toFixed(1))}×`} as large`);
  };
  const resize = () => {
    const box = host.getBoundingClientRect();
    if (!box.width || (box.width === view.width && box.height === view.height)) return;
    fit(points, box.width, box.height);
    view.resize(box.width, box.height);
    nearest = squares(among, view.width, view.height);
    choose(null);
    later();
    if (waiting) goTo(waiting);
  };
  const goTo = (point) => {
    waiting = view.width ? null : point; // nobody knows yet where it stands
    if (waiting) return;
    view.zoom(1e-9);
    view.zoom(4);
    view.go(point.bx, point.by);
    later();
    choose(point, true);
  };

  /* ---- pointers and keys ---- */

  const held = new Map(); // pointers that are down: where they were last
  let dragged = 0, touched = false, pinch = null; // pinch: how it began, and what of the whole was between the fingers
  const at = (event) => { const box = host.getBoundingClientRect(); return { x: event.clientX - box.left, y: event.clientY - box.top }; };
  const pointed = (event) => { const { x, y } = at(event); return nearest?.(view.whereX(x), view.whereY(y), REACH / view.times) ?? null; };
  const drag = (event) => {
    const old = held.get(event.pointerId), now = at(event);
    held.set(event.pointerId, now);
    dragged += Math.hypot(now.x - old.x, now.y - old.y);
    if (dragged <= DRAG) return;
    const [a, b] = [...held.values()];
    if (pinch) {
      const is = pinchOf(a, b);
      view.hold(pinch.times * is.apart / pinch.apart, pinch.bx, pinch.by, is.x, is.y);
    } else {
      view.move(now.x - old.x, now.y - old.y);
    }
    choose(null);
    later();
  };
  const begin = () => {
    const [a, b] = [...held.values()], is = b && pinchOf(a, b);
    pinch = b ? { times: view.times, apart: is.apart, bx: view.whereX(is.x), by: view.whereY(is.y) } : null;
  };
  host.addEventListener('pointerdown', (event) => {
    if (event.button) return;
    if (!held.size) dragged = 0;
    touched = event.pointerType === 'touch';
    held.set(event.pointerId, at(event));
    begin();
    host.setPointerCapture(event.pointerId);
  });
  host.addEventListener('pointermove', (event) => {
    if (held.has(event.pointerId)) return drag(event);
    if (event.pointerType === 'touch') return;
    const point = pointed(event);
    if (point !== chosen) choose(point);
  });
  for (const end of ['pointerup', 'pointercancel']) host.addEventListener(end, (event) => { held.delete(event.pointerId); begin(); });
  host.addEventListener('pointerleave', (event) => { if (event.pointerType !== 'touch') choose(null); });
  host.addEventListener('blur', () => choose(null));
  host.addEventListener('click', (event) => {
    if (dragged > DRAG) return;
    const point = pointed(event);
    if (point && (!touched || point === chosen)) return open(point);
    choose(point); // a finger cannot hover: its first touch says what is there
  });
  host.addEventListener('wheel', (event) => {
    const factor = Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : event.ctrlKey ? 0.01 : 0.0016));
    if (view.times === 1 && factor <= 1 && !event.ctrlKey) return; // all is seen: the page scrolls on
    event.preventDefault();
    const { x, y } = at(event);
    view.zoom(factor, x, y);
    choose(pointed(event));
    later();
  }, { passive: false });
  host.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = STEPS[event.key];
    if (event.key === 'Enter' && chosen) open(chosen);
    else if (event.key === 'Escape') choose(null);
    else if (event.key === '+' || event.key === '=') zoom(STEP);
    else if (event.key === '-') zoom(1 / STEP);
    else if (event.key === '0') zoom(0);
    else if (step && event.shiftKey) { view.move(-step[0] * view.width / 6, -step[1] * view.height / 6); later(); place(); }
    else if (step) choose(chosen ? beside(among, chosen, step) ?? chosen : among[0], true);
    else return;
    event.preventDefault();
  });
  new ResizeObserver(resize).observe(host);

  const repaint = ({ colour, found: some }) => {
    layers = byColour(points, colour);
    found = some;
    marked = some && byColour(some, colour);
    among = some?.length ? some : points;
    if (view.width) nearest = squares(among, view.width, view.height);
    choose(null);
    later();
  };
  return { node: h('div', { class: 'mapbox' }, host, control), repaint, goTo };
}
