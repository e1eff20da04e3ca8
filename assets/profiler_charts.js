// Charts of the Profiler tab: small SVGs of our own, drawn anew with each answer. Whatever comes from outside is text.
// Colours are classes, so that light and dark differ in the style sheet alone; every chart is an image with words.
const NS = 'http://www.w3.org/2000/svg';
function h(tag, attributes = {}, ...children) {
  return dress(document.createElement(tag), attributes, children);
}
function s(tag, attributes = {}, ...children) {
  return dress(document.createElementNS(NS, tag), attributes, children);
}
function dress(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value == null) continue;
    if (name === 'style') node.style.cssText = value;
    else node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.filter((child) => child != null && child !== false));
  return node;
}
const inMs = (ms) => (ms >= 10000 ? `${(ms / 1000).toFixed(1)} s` : ms >= 1000 ? `${(ms / 1000).toFixed(2)} s` : ms >= 10 ? `${Math.round(ms)} ms` : `${ms.toFixed(ms < 1 ? 2 : 1)} ms`);
const share = (p) => (p > 0 && p < 0.005 ? '<1 %' : p >= 0.995 && p < 1 ? '>99 %' : `${Math.round(100 * p)} %`);
const inMb = (mb) => (mb >= 1024 ? `${(mb / 1024).toFixed(1)} GB` : `${Math.round(mb)} MB`);
const counted = (n, noun) => `${n.toLocaleString('en')} ${noun}${n === 1 ? '' : 's'}`;
const colourClass = (stage) => `pf-c-${stage.replace(/[^a-z_]/g, '')}`;

// The round number at or above `value` of which an axis is made, and its steps.
function ticks(value, n = 3) {
  const rough = Math.max(value, 1e-9) / n, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((k) => k * power).find((k) => k >= rough * 0.999);
  const count = Math.max(1, Math.ceil(value / step - 1e-9));
  return { top: count * step, at: Array.from({ length: count + 1 }, (_, i) => i * step) };
}
const plain = (value) => (value >= 1000 ? value.toLocaleString('en', { maximumFractionDigits: 0 }) : String(+value.toPrecision(3)));

// An empty image of the place's width; `words` say what it shows to those who do not see it.
function canvas(place, height, words) {
  const width = Math.max(200, Math.floor(place.clientWidth || 320));
  return { width, height, node: s('svg', { width: '100%', height, viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': words, class: 'pf-svg' }) };
}
function show(place, picture) { place.replaceChildren(picture.node || picture); }
function nothing(place, words) { place.replaceChildren(h('p', { class: 'pf-none' }, words)); }
function yAxis(picture, left, right, top, bottom, scale) {
  for (const value of scale.at) {
    const y = bottom - (value / scale.top) * (bottom - top);
    picture.node.append(s('line', { x1: left, x2: right, y1: y, y2: y, class: 'pf-grid-line' }),
      s('text', { x: left - 6, y: y + 3.5, class: 'pf-tick', 'text-anchor': 'end' }, plain(value)));
  }
}

// The first song after a start may take ten times as long as all others: such a bar is cut, and says so.
function worthSeeing(totals) {
  const sorted = totals.slice().sort((a, b) => a - b), most = sorted[sorted.length - 1];
  const usual = sorted[Math.floor(0.9 * (sorted.length - 1))];
  return sorted.length >= 8 && most > 2.5 * usual ? 1.3 * usual : most;
}

// --- one bar a song, its stages stacked ---
function drawStacked(place, runs, stages, chosen, onChoose) {
  const width = place.clientWidth || 320, n = Math.max(8, Math.min(runs.length, Math.floor((width - 50) / 16)));
  const last = runs.slice(-n);
  if (!last.length) { nothing(place, 'No song yet. Analyse one, or scan a folder: it shows up here at once.'); return; }
  const newest = last[last.length - 1], total = newest.stages.total;
  const picture = canvas(place, 220, `Stage times of the last ${counted(last.length, 'song')}. The newest, ${newest.name}, took ${inMs(total)}: ${
    stages.filter(([key]) => newest.stages[key] > 0.02 * total).map(([key, name]) => `${name} ${inMs(newest.stages[key])}`).join(', ')}.`);
  const left = 46, right = picture.width - 4, top = 16, bottom = 200;
  const scale = ticks(worthSeeing(last.map((run) => run.stages.total)));
  yAxis(picture, left, right, top, bottom, scale);
  const step = (right - left) / n, bar = Math.min(30, step * 0.72);
  last.forEach((run, i) => {
    const x = left + (i + n - last.length + 0.5) * step - bar / 2;
    let y = bottom;
    const group = s('g', { class: run.number === chosen ? 'pf-bar pf-chosen-bar' : 'pf-bar', 'data-run': run.number });
    const words = [`${run.name}: ${inMs(run.stages.total)}${run.cached ? ', known' : ''}`];
    for (const [key, name] of stages) {
      const ms = run.stages[key];
      if (!ms) continue;
      const height = Math.min((ms / scale.top) * (bottom - top), y - top);
      y -= height;
      group.append(s('rect', { x, y, width: bar, height: Math.max(height, 0.01), class: colourClass(key) }));
      words.push(`${name} ${inMs(ms)}`);
    }
    const whole = (run.stages.total / scale.top) * (bottom - top);
    group.append(s('rect', { x: x - (step - bar) / 2, y: top, width: step, height: bottom - top, class: 'pf-hit' }),
      s('title', {}, words.join('\n')));
    if (run.number === chosen) group.append(s('path', { d: `M${x + bar / 2 - 5} ${bottom + 11}l5 -7l5 7z`, class: 'pf-mark' }));
    if (run.stages.total > scale.top) {
      group.append(s('path', { d: `M${x - 2} ${top + 5}l${bar + 4} -5v4l${-bar - 4} 5z`, class: 'pf-cut' }),
        s('text', { x: x + bar / 2, y: top - 3, class: 'pf-value', 'text-anchor': 'middle' }, inMs(run.stages.total)));
    }
    if (whole < 2) group.append(s('rect', { x, y: bottom - 2, width: bar, height: 2, class: 'pf-c-cache' }));
    group.addEventListener('click', () => onChoose(run.number));
    picture.node.append(group);
  });
  show(place, picture);
}

// --- one song: each span a bar where it lay ---
function drawWaterfall(place, run, spans) {
  if (!run) { nothing(place, 'No song yet.'); return; }
  if (!spans) { nothing(place, 'The spans of this song are no longer kept.'); return; }
  const row = 24, total = Math.max(run.stages.total, ...spans.map((one) => one.start_ms + one.ms), 1e-6);
  const left = Math.min(128, place.clientWidth * 0.32), labels = 62, top = 8, height = top + spans.length * row + 22;
  const picture = canvas(place, height, `Waterfall of ${run.name}, ${inMs(total)} in all: ${
    spans.map((one) => `${one.label} from ${inMs(one.start_ms)}, ${inMs(one.ms)} long`).join('; ')}.`);
  const right = picture.width - labels, scale = ticks(total, picture.width < 500 ? 2 : 5);
  const x = (ms) => left + (ms / total) * (right - left);
  for (const value of scale.at.filter((one) => one <= total)) {
    picture.node.append(s('line', { x1: x(value), x2: x(value), y1: top, y2: height - 18, class: 'pf-grid-line' }),
      s('text', { x: x(value), y: height - 5, class: 'pf-tick', 'text-anchor': 'middle' }, plain(value)));
  }
  spans.forEach((one, i) => {
    const y = top + i * row, end = x(one.start_ms + one.ms);
    picture.node.append(s('g', {},
      s('text', { x: left - 8, y: y + 15, class: one.depth ? 'pf-label pf-deep' : 'pf-label', 'text-anchor': 'end' }, one.label),
      s('rect', { x: x(one.start_ms), y: y + (one.depth ? 6 : 3), width: Math.max(end - x(one.start_ms), 1.5), height: one.depth ? 10 : 16, rx: 2, class: colourClass(one.name) }),
      s('text', { x: Math.min(end + 5, right + 4), y: y + 15, class: 'pf-value' }, inMs(one.ms)),
      s('title', {}, `${one.label}: ${inMs(one.ms)}, from ${inMs(one.start_ms)}, in thread ${one.thread}`)));
  });
  show(place, picture);
}

// --- lines over the last minutes ---
// `lines` are [{name, kind, values: [value or null for each moment]}], `moments` seconds since 1970.
function drawLines(place, words, moments, lines, { top: atLeast = 0, whole = 0 } = {}) {
  const known = lines.flatMap((line) => line.values.filter((v) => v != null));
  if (moments.length < 2 || !known.length) { nothing(place, 'Readings come each second while this tab is seen.'); return; }
  const picture = canvas(place, 150, words);
  const left = 46, right = picture.width - 6, top = 12, bottom = 128;
  const scale = whole ? { top: whole, at: [0, whole / 2, whole] } : ticks(Math.max(atLeast, ...known), 2);
  yAxis(picture, left, right, top, bottom, scale);
  const last = moments[moments.length - 1], span = Math.max(60, last - moments[0]);
  const x = (t) => right - ((last - t) / span) * (right - left), y = (v) => bottom - (Math.min(v, scale.top) / scale.top) * (bottom - top);
  for (const line of lines) {
    let path = '', before = null;
    line.values.forEach((v, i) => {
      const joined = before !== null && moments[i] - before < 6;  // nobody looked in between: a gap, not a line
      if (v == null) { before = null; return; }
      path += `${joined ? 'L' : 'M'}${x(moments[i]).toFixed(1)} ${y(v).toFixed(1)}`;
      before = moments[i];
    });
    picture.node.append(s('path', { d: path, class: `pf-curve pf-k-${line.kind}` }, s('title', {}, line.name)));
  }
  const ago = span >= 120 ? `${Math.round(span / 60)} min ago` : `${Math.round(span)} s ago`;
  picture.node.append(s('text', { x: left, y: 146, class: 'pf-tick' }, ago), s('text', { x: right, y: 146, class: 'pf-tick', 'text-anchor': 'end' }, 'now'));
  place.replaceChildren(picture.node, h('ul', { class: 'pf-legend' }, ...lines.filter((line) => line.name && !line.hidden).map((line) => h('li', {}, h('span', { class: `pf-key pf-k-${line.kind}` }), line.name))));
}

// --- how many segments went through the network together ---
function drawBatches(place, sizes) {
  if (!sizes.length) { nothing(place, 'The network has not been asked yet.'); return; }
  const n = sizes.reduce((sum, [, count]) => sum + count, 0), most = Math.max(...sizes.map(([, count]) => count));
  const segments = sizes.reduce((sum, [size, count]) => sum + size * count, 0);
  const picture = canvas(place, 250, `Network calls by their number of segments: ${sizes.map(([size, count]) => `${size}: ${count}`).join(', ')}.`);
  const left = 46, right = picture.width - 4, top = 18, bottom = 208, step = Math.min(64, (right - left) / sizes.length);
  const scale = ticks(most, 2);
  yAxis(picture, left, right, top, bottom, scale);
  sizes.forEach(([size, count], i) => {
    const height = (count / scale.top) * (bottom - top), x = left + i * step + step * 0.15;
    picture.node.append(s('g', {}, s('rect', { x, y: bottom - height, width: step * 0.7, height, rx: 2, class: 'pf-plain' }),
      s('text', { x: x + step * 0.35, y: bottom - height - 4, class: 'pf-value', 'text-anchor': 'middle' }, count.toLocaleString('en')),
      s('text', { x: x + step * 0.35, y: bottom + 15, class: 'pf-tick', 'text-anchor': 'middle' }, size),
      s('title', {}, `${counted(count, 'call')} of ${counted(size, 'segment')}`)));
  });
  picture.node.append(s('text', { x: left, y: 242, class: 'pf-tick' }, `${(segments / n).toFixed(1)} segments a call on average, ${counted(n, 'call')}`));
  show(place, picture);
}
