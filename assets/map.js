// The map of the library: tens of thousands of points on a canvas. Hover names a song, a click plays it, a lasso
// selects. `element`, `trigger`, `props`, `server` and `watch` are given by Gradio.
const canvas = element.querySelector('canvas'), frame = element.querySelector('.as-map');
const tip = element.querySelector('.as-map-tip'), note = element.querySelector('.as-map-note');
const pen = canvas.getContext('2d');
const PAD = 14, HEAD = 34, NEAR = 14, MAX_ZOOM = 60;  // HEAD keeps the uppermost points clear of the tools

let n = 0, ids = new Uint32Array(0), places = new Uint16Array(0), genre = new Uint16Array(0), genres = [];
let row = new Map();                                  // id -> number of the point
let shown = null, selected = new Set(), chosen = null;  // numbers of points; null is all
let zoom = 1, left = 0, top = 0;                      // view: a square of side 1 / zoom at (left, top) of the unit square
let grid = null;                                      // buckets of points for finding the nearest
let lasso = null, drag = null, hover = -1, wanted = 0;
let lassoing = matchMedia('(pointer: fine)').matches; // a finger scrolls the page unless it is told otherwise

const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
const numbers = (list) => [...list].map((id) => row.get(id)).filter((i) => i !== undefined);

// --- what is drawn ---
function load() {
  let given;
  try { given = JSON.parse(props.value || '{}'); } catch { return; }
  n = given.n || 0;
  ids = new Uint32Array(bytes(given.ids || ''));
  places = new Uint16Array(bytes(given.places || ''));
  genre = new Uint16Array(bytes(given.genre || ''));
  genres = given.genres || [];
  row = new Map(Array.from(ids, (id, i) => [id, i]));
  heard.clear();  // a genre may be another now
  note.textContent = given.note || '';
  note.hidden = !given.note;
  bucket();
  mark();
}

function mark() {
  let given;
  try { given = JSON.parse(document.querySelector('#library-marks .as-marks')?.dataset.marks || '{}'); } catch { given = {}; }
  shown = given.shown == null ? null : new Set(numbers(new Uint32Array(bytes(given.shown))));
  selected = new Set(numbers(new Uint32Array(bytes(given.selected || ''))));
  chosen = given.chosen == null ? null : row.get(given.chosen) ?? null;
  draw();
}

function bucket() {
  const side = Math.max(1, Math.round(Math.sqrt(n / 4)));
  grid = { side, cells: Array.from({ length: side * side }, () => []) };
  for (let i = 0; i < n; i += 1) {
    const [x, y] = unit(i);
    grid.cells[Math.min(side - 1, Math.floor(y * side)) * side + Math.min(side - 1, Math.floor(x * side))].push(i);
  }
}

const unit = (i) => [places[2 * i] / 65535, 1 - places[2 * i + 1] / 65535];
// the unit square is stretched to the frame: the axes have no unit, so that only nearness counts
const across = () => canvas.clientWidth - 2 * PAD, down = () => canvas.clientHeight - 2 * PAD - HEAD;
const screenX = (x) => PAD + (x - left) * zoom * across(), screenY = (y) => PAD + HEAD + (y - top) * zoom * down();
const unitX = (x) => (x - PAD) / (zoom * across()) + left, unitY = (y) => (y - PAD - HEAD) / (zoom * down()) + top;

let due = 0;
function draw() {
  if (!due) due = requestAnimationFrame(() => { due = 0; paint(); });
}

function paint() {
  const width = canvas.clientWidth, height = canvas.clientHeight, dpr = window.devicePixelRatio || 1;
  if (!width || !height) return;
  if (canvas.width !== Math.round(width * dpr) || canvas.height !== Math.round(height * dpr)) {
    canvas.width = Math.round(width * dpr);
    canvas.height = Math.round(height * dpr);
  }
  pen.setTransform(dpr, 0, 0, dpr, 0, 0);
  pen.clearRect(0, 0, width, height);
  const dark = document.body.classList.contains('dark'), style = getComputedStyle(frame);
  const ink = style.getPropertyValue('--as-ink'), accent = style.getPropertyValue('--as-accent');
  const size = Math.max(2.2, Math.min(7, 130 / Math.sqrt(n || 1))) * Math.min(2, Math.sqrt(Math.sqrt(zoom)));
  const quiet = [], loud = [];
  for (let i = 0; i < n; i += 1) ((shown && !shown.has(i)) || (selected.size && !selected.has(i)) ? quiet : loud).push(i);
  quiet.sort((a, b) => genre[a] - genre[b]);
  dots(quiet, size * 0.8, dark ? 0.16 : 0.22, null);
  dots(loud, size, 0.92, n <= 3000 ? (dark ? 'rgba(0,0,0,0.55)' : 'rgba(11,23,32,0.5)') : null);
  pen.globalAlpha = 0.6;
  if (selected.size <= 400) for (const i of selected) ring(i, size / 2 + 1, ink, 1);
  pen.globalAlpha = 1;
  if (hover >= 0) ring(hover, size / 2 + 3, ink, 2);
  if (chosen !== null) { ring(chosen, size / 2 + 3, accent, 2.5); ring(chosen, size / 2 + 6, accent, 1); }
  if (lasso) {
    pen.beginPath();
    lasso.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    pen.closePath();
    pen.fillStyle = accent; pen.globalAlpha = 0.12; pen.fill(); pen.globalAlpha = 1;
    pen.strokeStyle = accent; pen.lineWidth = 1.5; pen.setLineDash([5, 4]); pen.stroke(); pen.setLineDash([]);
  }
  canvas.dataset.drawn = String(n);
}

function dots(list, size, alpha, edge) {
  pen.globalAlpha = alpha;
  pen.lineWidth = 0.8;
  let last = -1;
  for (const i of list) {
    const [ux, uy] = unit(i), x = screenX(ux), y = screenY(uy);
    if (x < -9 || y < -9 || x > canvas.clientWidth + 9 || y > canvas.clientHeight + 9) continue;
    if (genre[i] !== last) { last = genre[i]; pen.fillStyle = genres[last]?.colour || '#888'; }
    pen.beginPath();
    pen.arc(x, y, size / 2, 0, 6.2832);
    pen.fill();
    if (edge) { pen.strokeStyle = edge; pen.stroke(); }
  }
  pen.globalAlpha = 1;
}

function ring(i, radius, colour, width) {
  const [x, y] = unit(i);
  pen.beginPath();
  pen.arc(screenX(x), screenY(y), radius, 0, 6.2832);
  pen.strokeStyle = colour; pen.lineWidth = width; pen.stroke();
}

// --- what is under the pointer ---
function nearest(x, y) {
  if (!grid || !n) return -1;
  const { side, cells } = grid, reachX = NEAR / (zoom * across()), reachY = NEAR / (zoom * down());
  const cell = (v) => Math.max(0, Math.min(side - 1, Math.floor(v * side)));
  let best = -1, bestD = NEAR * NEAR;
  for (let r = cell(unitY(y) - reachY); r <= cell(unitY(y) + reachY); r += 1) {
    for (let c = cell(unitX(x) - reachX); c <= cell(unitX(x) + reachX); c += 1) {
      for (const i of cells[r * side + c]) {
        if (shown && !shown.has(i)) continue;
        const [ux, uy] = unit(i), d = (screenX(ux) - x) ** 2 + (screenY(uy) - y) ** 2;
        if (d < bestD) { bestD = d; best = i; }
      }
    }
  }
  return best;
}

const heard = new Map();  // id -> promise of what is known of the song
function ask(id) {
  if (!heard.has(id)) {
    if (heard.size > 500) heard.clear();
    heard.set(id, server.hovered(id).catch(() => { heard.delete(id); return null; }));
  }
  return heard.get(id);
}

async function name(i, x, y) {
  wanted += 1;
  const mine = wanted;
  await new Promise((soon) => setTimeout(soon, 40));  // a pointer that passes by asks nothing
  const song = mine === wanted ? await ask(ids[i]) : null;
  if (mine !== wanted || !song) return;
  tip.querySelector('.as-map-tip-name').textContent = song.name;
  tip.querySelector('.as-map-tip-artist').textContent = song.artist;
  tip.querySelector('.as-map-tip-genre').textContent = song.genre;
  tip.querySelector('.as-dot').style.background = song.colour;
  tip.hidden = false;
  const wide = tip.offsetWidth, high = tip.offsetHeight;
  tip.style.left = `${Math.max(4, Math.min(frame.clientWidth - wide - 4, x + 14))}px`;
  tip.style.top = `${y + 18 + high > frame.clientHeight ? Math.max(4, y - high - 12) : y + 18}px`;
}

function forget() { wanted += 1; tip.hidden = true; }

// --- pointer: hover, click, lasso, move ---
const place = (event) => {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};

canvas.addEventListener('pointerdown', (event) => {
  if (event.button) return;
  const [x, y] = place(event);
  drag = { x, y, left, top, moved: false, touch: event.pointerType === 'touch' };
  if (!drag.touch || lassoing) canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener('pointermove', (event) => {
  const [x, y] = place(event);
  if (drag) {
    if (!drag.moved && Math.hypot(x - drag.x, y - drag.y) > 5) { drag.moved = true; forget(); if (lassoing) lasso = [[drag.x, drag.y]]; }
    if (drag.moved && lasso) lasso.push([x, y]);
    else if (drag.moved && !drag.touch) look(drag.left - (x - drag.x) / (zoom * across()), drag.top - (y - drag.y) / (zoom * down()));
    draw();
    return;
  }
  const i = nearest(x, y);
  canvas.style.cursor = i >= 0 ? 'pointer' : lassoing ? 'crosshair' : 'grab';
  if (i === hover) return;
  hover = i;
  draw();
  if (i >= 0) name(i, x, y); else forget();
});
canvas.addEventListener('pointerup', (event) => {
  const [x, y] = place(event), was = drag;
  drag = null;
  if (!was) return;
  const way = lasso;
  lasso = null;
  draw();
  if (way && reach(way) > NEAR) {
    const inside = within(way);
    if (inside.length) trigger('select', { do: 'lasso', value: event.shiftKey ? 'add' : '', ids: inside });
  } else if (way || !was.moved) {  // a lasso no larger than a point was meant as a click

    const i = nearest(x, y);
    if (i >= 0) { trigger('select', { do: 'play', value: String(ids[i]) }); if (was.touch) name(i, x, y); }
  }
});
canvas.addEventListener('pointercancel', () => { drag = null; lasso = null; draw(); });
canvas.addEventListener('pointerleave', () => { if (!drag) { hover = -1; forget(); draw(); } });
canvas.addEventListener('wheel', (event) => {
  if (!event.ctrlKey && !event.metaKey) return;  // a plain wheel scrolls the page
  event.preventDefault();
  magnify(Math.exp(-event.deltaY / 300), ...place(event));
}, { passive: false });

const reach = (way) => Math.max(...[0, 1].map((axis) => {
  const along = way.map((p) => p[axis]);
  return Math.max(...along) - Math.min(...along);
}));

// Whether the way round the points encloses each (even and odd crossings).
function within(way) {
  const found = [];
  const xs = way.map((p) => p[0]), ys = way.map((p) => p[1]);
  const box = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  for (let i = 0; i < n; i += 1) {
    if (shown && !shown.has(i)) continue;
    const [ux, uy] = unit(i), x = screenX(ux), y = screenY(uy);
    if (x < box[0] || x > box[1] || y < box[2] || y > box[3]) continue;
    let odd = false;
    for (let a = 0, b = way.length - 1; a < way.length; b = a, a += 1) {
      const [ax, ay] = way[a], [bx, by] = way[b];
      if ((ay > y) !== (by > y) && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) odd = !odd;
    }
    if (odd) found.push(ids[i]);
  }
  return found;
}

// --- the view ---
function look(x, y) {
  const most = 1 - 1 / zoom;
  left = Math.max(0, Math.min(most, x));
  top = Math.max(0, Math.min(most, y));
  draw();
}
function magnify(by, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
  const ux = unitX(x), uy = unitY(y);
  zoom = Math.max(1, Math.min(MAX_ZOOM, zoom * by));
  forget();
  look(ux - (x - PAD) / (zoom * across()), uy - (y - PAD - HEAD) / (zoom * down()));
}
function setLasso(on) {
  lassoing = on;
  canvas.style.touchAction = on ? 'none' : 'pan-y';
  for (const button of element.querySelectorAll('[data-map=lasso]')) button.setAttribute('aria-pressed', String(on));
}
element.addEventListener('click', (event) => {
  const what = event.target.closest('[data-map]')?.dataset.map;
  if (what === 'in') magnify(1.6);
  if (what === 'out') magnify(1 / 1.6);
  if (what === 'whole') { zoom = 1; look(0, 0); }
  if (what === 'lasso') setLasso(!lassoing);
});

// for those who look from outside: where on the canvas a song lies
canvas.placeOf = (id) => {
  const i = row.get(id);
  return i === undefined ? null : [screenX(unit(i)[0]), screenY(unit(i)[1])];
};

new ResizeObserver(draw).observe(canvas);
new MutationObserver(draw).observe(document.body, { attributes: true, attributeFilter: ['class'] });
document.addEventListener('as-marks', mark);
watch('value', load);
setLasso(lassoing);
load();
