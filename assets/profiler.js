// The Profiler tab in the browser. It asks for numbers each second while work runs, more seldom while none does, and for
// nothing while it is not seen. `element` and `server` come from the HTML component that this is the code of.
const $ = (selector, where = element) => where.querySelector(selector);
const BUSY_MS = 1000, IDLE_MS = 2500, RETRY_MS = 3000, KEPT_RUNS = 60, KEPT_S = 180, OFFERED = 12;
const DEMO = '';  // as the value of an option: no song has an empty path
const P = {
  token: '', stages: [], runs: [], samples: [], now: null, chosen: 0, song: null, offered: [], spans: null, spansOf: 0, timer: 0,
  asking: false, n_polls: 0, opened: false, refused: null, drawnResult: null, compared: { running: false, step: '', error: null, result: null },
};
const sentence = (error) => `${error.message.charAt(0).toUpperCase()}${error.message.slice(1)}. ${error.hint || ''}`.replace('..', '.');
const visible = () => element.isConnected && !document.hidden && element.getClientRects().length > 0;
function put(place, text) { if (place && place.textContent !== text) place.textContent = text; }
function notice(text) {
  put($('.pf-notice'), text);
  $('.pf-notice').hidden = !text;
}

// --- asking ---
// None of these rejects: where the program is away, or the answer is lost, there is none.
async function call(name, what) {
  try { return await server[`profiler_${name}`](what); } catch { return undefined; }
}
async function ask(name, what = {}) {
  const answer = await call(name, { token: P.token, ...what });
  if (!answer || answer.ok || answer.error.code !== 'STALE') return answer;
  return (await open()) ? call(name, { token: P.token, ...what, after_run: 0, after_sample: 0 }) : undefined;
}
async function open() {
  const answer = await call('open', {});
  if (!answer || !answer.ok) return false;
  Object.assign(P, { token: answer.token, stages: answer.stages, runs: [], samples: [], chosen: 0, song: null, spans: null, spansOf: 0 });
  if (!P.opened) {
    $('.pf-legend').replaceChildren(...P.stages.map(([key, name]) => h('li', {}, h('span', { class: `pf-key ${colourClass(key)}` }), name)));
    for (const [name, values] of [['backend', answer.backends], ['precision', answer.precisions]]) {
      for (const select of element.querySelectorAll(`select[name=${name}]`)) select.replaceChildren(...values.map((value) => h('option', { value }, value)));
    }
    P.opened = true;
  }
  return true;
}
const newest = (list) => (list.length ? list[list.length - 1].number : 0);
async function look() {
  clearTimeout(P.timer);
  if (P.asking || !visible()) return;
  P.asking = true;
  const began = performance.now();
  const answer = P.opened || await open() ? await ask('state', { after_run: newest(P.runs), after_sample: newest(P.samples) }) : undefined;
  P.asking = false;
  P.n_polls += 1;
  element.querySelector('.pf').dataset.polls = P.n_polls;
  if (answer && answer.ok) { notice(''); take(answer); } else notice(answer ? sentence(answer.error) : 'No answer from the program; asking again.');
  if (!visible()) return;
  const every = !answer || !answer.ok ? RETRY_MS : answer.busy || answer.what_if.running ? BUSY_MS : IDLE_MS;
  P.timer = setTimeout(look, Math.max(100, every - (performance.now() - began)));
}
function take(answer) {
  P.now = answer;
  P.compared = answer.what_if;
  if (P.compared.running) P.refused = null;
  P.runs = [...P.runs, ...answer.runs.filter((run) => run.number > newest(P.runs))].slice(-KEPT_RUNS);
  P.samples = [...P.samples, ...answer.samples.filter((one) => one.number > newest(P.samples))].filter((one) => one.at > answer.at - KEPT_S);
  draw();
}
async function findSpans() {
  const run = shownRun();
  if (!run || P.spansOf === run.number) return;
  const place = $('[data-chart=waterfall]');
  Object.assign(P, { spansOf: run.number, spans: null });
  place.classList.add('pf-before');  // what is still seen there is of the song before
  const answer = await ask('spans', { run: run.number });
  if (P.spansOf !== run.number) return;
  place.classList.remove('pf-before');
  if (answer && answer.ok) {
    P.spans = answer.spans;
    drawWaterfall(place, run, P.spans);
  } else {
    P.spansOf = 0;  // asked again when the next numbers are drawn
    nothing(place, `${answer ? sentence(answer.error) : 'No answer from the program.'} Asking again.`);
  }
}
const shownRun = () => P.runs.find((run) => run.number === P.chosen) || P.runs[P.runs.length - 1];
function choose(number) {
  P.chosen = number;
  draw();
}

// --- drawing ---
function draw() {
  if (!P.now) return;
  drawHead();
  drawTiles();
  const run = shownRun();
  if (P.chosen && (!run || run.number !== P.chosen)) P.chosen = 0;
  drawStacked($('[data-chart=stacked]'), P.runs, P.stages, run && run.number, choose);
  fillOptions($('.pf-run'), [[0, 'the newest'], ...P.runs.slice().reverse().map((one) => [one.number, `${one.name} – ${inMs(one.stages.total)}`])], P.chosen);
  if (run && P.spansOf === run.number && P.spans) drawWaterfall($('[data-chart=waterfall]'), run, P.spans);
  else if (!run) drawWaterfall($('[data-chart=waterfall]'), null, null);
  findSpans();
  drawPercentiles();
  drawBatches($('[data-chart=batches]'), P.now.batch_sizes);
  drawMachine();
  drawBackend();
  drawMade();
  drawWhatIf();
}
function drawHead() {
  const found = P.now.bottleneck;
  put($('.pf-sentence'), found ? found.sentence : !P.runs.length ? 'Nothing has been analysed yet.' : P.runs.every((run) => run.cached) ? 'All of the last answers were known.' : 'No stage takes half of the time.');
  $('.pf').classList.toggle('pf-busy', P.now.busy);
  put($('.pf-told'), `${P.now.busy ? 'Working' : 'Idle'} · ${counted(P.now.n_runs, 'song')} since the start${found ? ` · over the last ${counted(found.n_runs, 'new song')}` : ''}`);
}
function tile(key, value, more = '') {
  put($(`[data-tile=${key}]`), value);
  put($(`[data-more=${key}]`), more);
}
function drawTiles() {
  const { throughput, percentiles, load, cache } = P.now, total = percentiles.find((one) => one.stage === 'total');
  const rate = throughput.songs_per_s;
  tile('throughput', rate >= 10 ? rate.toFixed(0) : rate >= 0.1 || !rate ? rate.toFixed(1) : rate.toFixed(2),
    `songs a second, in the last ${Math.max(1, Math.round(throughput.over_s))} s`);
  tile('median', total ? inMs(total.p50) : '–', total ? `nine in ten in ${inMs(total.p90)}` : 'no song yet');
  const segments = load.queue_segments, files = load.waiting_files;
  tile('queue', segments == null ? '–' : counted(segments, 'segment'), files == null ? 'the queue is not told' : `${counted(files, 'file')} to be decoded`);
  tile('known', P.now.n_requests ? share(P.now.answers_known) : '–', cache ? `of ${counted(P.now.n_requests, 'answer')} · ${share(cache.hit_rate)} of all look-ups` : 'nothing is cached');
  const one = P.samples[P.samples.length - 1];
  if (!one) return;
  const mean = one.cores.reduce((sum, v) => sum + v, 0) / Math.max(1, one.cores.length);
  tile('cpu', `${Math.round(mean)} %`, `of ${counted(one.cores.length, 'core')} · program ${Math.round(one.cpu)} % of one`);
  tile('memory', inMb(one.rss_mb + one.workers_rss_mb), `${inMb(one.available_mb)} free of ${inMb(one.total_mb)}`);
}
// A select is only filled anew when what it offers has changed, and never under somebody's hand: whether it now offers these.
function fillOptions(select, options, value) {
  if (document.activeElement === select) return false;
  const key = JSON.stringify(options);
  if (select.dataset.key !== key) {
    select.dataset.key = key;
    select.replaceChildren(...options.map(([each, words]) => h('option', { value: each }, words)));
  }
  select.value = String(value);
  return true;
}
function drawPercentiles() {
  const names = new Map([...P.stages, ['total', 'Total']]), order = [...names.keys()];
  const rows = P.now.percentiles.slice().sort((a, b) => (order.indexOf(a.stage) + 1 || 99) - (order.indexOf(b.stage) + 1 || 99));
  const ms = (value) => h('td', {}, value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2));
  $('.pf-percentiles tbody').replaceChildren(...rows.map((one) => h('tr', { class: one.stage === 'total' ? 'pf-total' : '' },
    h('th', { scope: 'row' }, h('span', { class: `pf-key ${one.stage === 'total' ? '' : colourClass(one.stage)}` }), names.get(one.stage) || one.stage),
    ms(one.p50), ms(one.p90), ms(one.p99), h('td', {}, one.n.toLocaleString('en')))));
  if (!rows.length) $('.pf-percentiles tbody').replaceChildren(h('tr', {}, h('td', { colspan: 5, class: 'pf-none' }, 'No song yet.')));
}
function drawMachine() {
  const all = P.samples, one = all[all.length - 1], moments = all.map((sample) => sample.at);
  const column = (read) => all.map(read), chart = (key) => $(`[data-chart=${key}]`), now = (key, words) => put($(`[data-now=${key}]`), words);
  if (!one) { for (const key of ['cpu', 'memory', 'queue', 'disk', 'gpu']) nothing(chart(key), 'The first reading is on its way.'); return; }
  const mean = column((sample) => sample.cores.reduce((sum, v) => sum + v, 0) / Math.max(1, sample.cores.length));
  const cores = one.cores.map((_, i) => ({ name: `core ${i}`, kind: 'core', hidden: i > 0, values: column((sample) => sample.cores[i]) }));
  if (cores.length) cores[0].name = cores.length > 1 ? `cores 0 to ${cores.length - 1}` : 'core 0';
  now('cpu', one.cores.length > 8 ? `All cores ${Math.round(mean[mean.length - 1])} %, the busiest ${Math.round(Math.max(...one.cores))} %` : one.cores.map((v, i) => `core ${i} ${Math.round(v)} %`).join(' · '));
  drawLines(chart('cpu'), `CPU over the last minutes; now ${Math.round(mean[mean.length - 1])} % of ${one.cores.length} cores.`, moments, [...cores, { name: 'mean of all cores', kind: 'strong', values: mean }], { whole: 100 });
  now('memory', `Program ${inMb(one.rss_mb)}${one.n_workers ? `, ${one.n_workers === 1 ? 'one other process' : `${one.n_workers} other processes`} of its own ${inMb(one.workers_rss_mb)}` : ''}`);
  drawLines(chart('memory'), `Memory in MB over the last minutes; now ${Math.round(one.rss_mb + one.workers_rss_mb)} MB.`, moments, [
    { name: 'program', kind: 'strong', values: column((sample) => sample.rss_mb) },
    ...(all.some((sample) => sample.n_workers) ? [{ name: 'its other processes', kind: 'second', values: column((sample) => sample.workers_rss_mb) }] : [])]);
  if (one.load.queue_segments == null) { now('queue', ''); nothing(chart('queue'), 'The queue is not told.'); } else {
    const before = all[all.length - 2], busy = before && one.load.network_busy_s != null ? Math.min(1, (one.load.network_busy_s - before.load.network_busy_s) / (one.at - before.at)) : null;
    now('queue', `${counted(one.load.queue_segments, 'segment')} for the network, ${counted(one.load.waiting_files || 0, 'file')} to be decoded${busy == null ? '' : `; the network is busy ${share(busy)} of the time`}`);
    drawLines(chart('queue'), `What waited over the last minutes; now ${one.load.queue_segments} segments.`, moments, [
      { name: 'segments', kind: 'strong', values: column((sample) => sample.load.queue_segments) },
      { name: 'files', kind: 'second', values: column((sample) => sample.load.waiting_files) }], { top: 4 });
  }
  const rate = (v) => (v == null ? '–' : `${v.toFixed(1)} MB/s`);
  now('disk', `Read ${rate(one.read_mb_per_s)}, written ${rate(one.written_mb_per_s)}`);
  drawLines(chart('disk'), 'Read from and written to disk over the last minutes, in MB a second.', moments, [
    { name: 'read', kind: 'strong', values: column((sample) => sample.read_mb_per_s) },
    { name: 'written', kind: 'second', values: column((sample) => sample.written_mb_per_s) }], { top: 1 });
  drawGpu(one, column, moments);
}
function drawGpu(one, column, moments) {
  const place = $('[data-chart=gpu]'), has = one.gpus.length > 0;
  if (!has) { put($('[data-now=gpu]'), ''); nothing(place, `${one.gpu_note.charAt(0).toUpperCase()}${one.gpu_note.slice(1)}.`); return; }
  const told = (gpu) => [gpu.name, gpu.utilization_percent == null ? null : `${gpu.utilization_percent} %`,
    gpu.memory_used_mb == null ? null : `${inMb(gpu.memory_used_mb)} of ${inMb(gpu.memory_total_mb || 0)}`,
    gpu.temperature_c == null ? null : `${gpu.temperature_c} °C`, gpu.power_w == null ? null : `${Math.round(gpu.power_w)} W`].filter(Boolean).join(' · ');
  put($('[data-now=gpu]'), one.gpus.map(told).join('; '));
  const of = (i, read) => column((sample) => (sample.gpus[i] ? read(sample.gpus[i]) : null));
  drawLines(place, `GPU over the last minutes; now ${one.gpus.map(told).join('; ')}.`, moments, one.gpus.flatMap((gpu, i) => [
    { name: `GPU ${i} busy`, kind: i ? 'core' : 'strong', values: of(i, (g) => g.utilization_percent) },
    { name: `GPU ${i} memory`, kind: 'second', values: of(i, (g) => (g.memory_used_mb == null || !g.memory_total_mb ? null : (100 * g.memory_used_mb) / g.memory_total_mb)) }]), { whole: 100 });
}
function drawBackend() {
  const b = P.now.backend, sizes = [...new Set(b.candidates.flatMap((one) => Object.keys(one.ms)))].sort((x, y) => x - y);
  $('.pf-backend').replaceChildren(h('strong', {}, `${b.name}, ${b.precision}`), ` on ${b.device_name || b.device}`, b.n_threads ? `, ${counted(b.n_threads, 'thread')}` : '',
    b.state === 'measuring' || b.state === 'compiling' ? h('span', { class: 'pf-badge' }, `still ${b.state}`) : '');
  const chosen = (b.chosen && `${b.chosen.charAt(0).toUpperCase()}${b.chosen.slice(1)}.`.replace('..', '.')) || (b.candidates.length ? '' : 'No other backend was measured.');
  put($('.pf-chosen'), b.measured_at ? `${chosen} Measured on ${b.measured_at.slice(0, 10)}.` : chosen);
  $('.pf-candidates').parentElement.hidden = !b.candidates.length;
  $('.pf-candidates thead').replaceChildren(h('tr', {}, h('th', { scope: 'col' }, 'Backend'), h('th', { scope: 'col' }, 'State'),
    ...sizes.map((size) => h('th', { scope: 'col' }, `ms, ${counted(Number(size), 'segment')}`)), h('th', { scope: 'col' }, 'Cosine'), h('th', { scope: 'col', class: 'pf-note' }, 'Note')));
  $('.pf-candidates tbody').replaceChildren(...b.candidates.map((one) => h('tr', { class: one.state === 'in use' ? 'pf-total' : '' },
    h('th', { scope: 'row' }, `${one.backend}, ${one.precision}`), h('td', {}, h('span', { class: `pf-badge pf-s-${one.state.replace(/[^a-z]/g, '')}` }, one.state)),
    ...sizes.map((size) => h('td', {}, one.ms[size] == null ? '–' : one.ms[size].toFixed(1))), h('td', {}, one.cosine == null ? '–' : one.cosine.toFixed(5)), h('td', { class: 'pf-note' }, one.note))));
}
// What was made ready for one batch size at a time, by torch.compile or as CUDA graphs, and what became of it.
function drawMade() {
  const { compiled, graphs, tensorrt_error: engine } = P.now.backend, ms = (value) => h('td', {}, value == null ? '–' : value.toFixed(1));
  $('.pf-compile').hidden = !compiled;
  $('.pf-compiled tbody').replaceChildren(...(compiled ? compiled.sizes : []).map((one) => h('tr', {},
    h('th', { scope: 'row' }, one.size > 1 ? `up to ${counted(one.size, 'segment')}` : '1 segment'), h('td', {}, h('span', { class: `pf-badge pf-s-${one.state.replace(/[^a-z]/g, '')}` }, one.state)),
    ms(one.first_ms), ms(one.eager_ms), ms(one.compiled_ms), h('td', {}, one.cosine == null ? '–' : one.cosine.toFixed(5)), h('td', {}, one.n_calls.toLocaleString('en')))));
  const sentences = [graphs && (graphs.sizes.length ? `CUDA graphs are recorded for batches of ${graphs.sizes.join(', ')}.` : 'No CUDA graph is recorded.'),
    ...[['A compiled graph', compiled && compiled.error], ['A CUDA graph', graphs && graphs.error], ['The TensorRT engine', engine]].map(([name, error]) => error && `${name} failed, and eager answers instead: ${error}.`.replace('..', '.')),
  ].filter(Boolean);
  put($('.pf-made'), sentences.join(' '));
  $('.pf-made').hidden = !sentences.length;
}

// --- what if ---
// The newest run of each of the last songs. The chosen one stays among them, however many come after it.
function toOffer() {
  const last = new Map();
  for (const run of P.runs.slice().reverse()) if (!last.has(run.path)) last.set(run.path, run);
  P.song = P.song && (last.get(P.song.path) || P.song);
  const songs = [...last.values()].slice(0, OFFERED);
  return P.song && !songs.includes(P.song) ? [...songs, P.song] : songs;
}
// Names, and behind those that are there twice the folders by which they differ.
function toldApart(songs) {
  const parts = songs.map((run) => run.path.split(/[\\/]/)), end = (one, n) => one.slice(-n).join('/');
  return songs.map((run, i) => {
    let n = 1;
    while (n < parts[i].length && parts.some((other, j) => j !== i && end(other, n) === end(parts[i], n))) n += 1;
    return n > 1 ? `${run.name} – ${end(parts[i].slice(0, -1), n - 1)}` : run.name;
  });
}
function drawWhatIf() {
  const w = P.compared, error = P.refused || w.error, songs = toOffer(), words = toldApart(songs);
  const options = [[DEMO, 'the demo clip'], ...songs.map((run, i) => [run.path, words[i]])];
  if (fillOptions($('.pf-song select'), options, P.song ? P.song.path : DEMO)) P.offered = songs;
  $('.pf-go').disabled = w.running;
  $('[data-do=stop]').hidden = !w.running;
  put($('.pf-progress'), w.running ? `Comparing: ${w.step} …` : error ? sentence(error) : '');
  $('.pf-progress').classList.toggle('pf-failed', !w.running && Boolean(error));
  const key = JSON.stringify(w.result);
  if (P.drawnResult === key) return;
  P.drawnResult = key;
  $('.pf-result').replaceChildren(...(w.result ? difference(w.result) : []));
}
function difference(found) {
  const [a, b] = found.sides, stages = P.stages.filter(([name]) => Math.max(a.medians_ms[name] || 0, b.medians_ms[name] || 0) >= 0.005);
  const way = (side) => `${side.backend}, ${side.precision}, ${counted(side.n_segments, 'segment')}${side.denoise ? ', denoised' : ''}${side.ready ? '' : ' (not ready yet)'}${side.notes.length ? ' (with eager, see above)' : ''}`;
  const speed = found.faster >= 1 ? `is ${found.faster.toFixed(2)} times as fast` : `takes ${(1 / found.faster).toFixed(2)} times as long`;
  const change = (x, y) => (x === undefined || y === undefined ? '–' : `${y - x < 0 ? '−' : '+'}${inMs(Math.abs(y - x))}`);
  const row = (name, x, y, z, key) => h('tr', { class: key === 'total' ? 'pf-total' : '' }, h('th', { scope: 'row' }, key && key !== 'total' ? h('span', { class: `pf-key ${colourClass(key)}` }) : null, name), h('td', {}, x), h('td', {}, y), h('td', {}, z));
  const ms = (name, key) => row(name, inMs(a.medians_ms[key] || 0), inMs(b.medians_ms[key] || 0), change(a.medians_ms[key] || 0, b.medians_ms[key] || 0), key);
  const points = (x, y) => { const d = Math.round(1000 * (y - x)) / 10; return `${d < 0 ? '−' : '+'}${Math.abs(d)} points`; };
  const notes = [['first', a], ['second', b]].flatMap(([name, side]) => side.notes.map((note) => h('p', { class: 'pf-fell' }, `In the ${name} way ${note}.`)));
  const review = (side) => (side.needs_review ? 'to review' : 'sure');
  const { genre, before, after } = found.moved;
  return [h('p', { class: 'pf-verdict' }, h('strong', {}, `The second way ${speed}. `), a.genre === b.genre ? `Both say ${a.genre}.` : `The first says ${a.genre}, the second ${b.genre}.`),
    h('p', { class: 'as-note' }, h('bdi', {}, found.name), ` · medians of ${found.n_rounds} rounds in turns`), ...notes,
    h('div', { class: 'pf-scroll', tabindex: 0, role: 'region', 'aria-label': 'Comparison' }, h('table', { class: 'pf-table pf-compared' },
      h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, ''), h('th', { scope: 'col' }, way(a)), h('th', { scope: 'col' }, way(b)), h('th', { scope: 'col' }, 'Change'))),
      h('tbody', {}, ...stages.map(([key, name]) => ms(name, key)), ms('Total', 'total'),
        row('Top genre', a.genre, b.genre, a.genre === b.genre ? 'the same' : 'changed'),
        row('Confidence', share(a.confidence), share(b.confidence), points(a.confidence, b.confidence)),
        row('Largest change', `${genre} ${share(before)}`, `${genre} ${share(after)}`, points(before, after)),
        row('Review', review(a), review(b), a.needs_review === b.needs_review ? 'the same' : 'changed'))))];
}
async function compare(event) {
  event.preventDefault();
  const way = (key) => {
    const place = $(`[data-way=${key}]`), field = (name) => $(`[name=${name}]`, place);
    return { n_segments: Number(field('n_segments').value || 0), backend: field('backend').value, precision: field('precision').value, denoise: field('denoise').checked };
  };
  $('.pf-go').disabled = true;
  told(await ask('compare', { song: P.song ? P.song.number : 'demo', first: way('first'), second: way('second') }));
}
async function stop() { told(await ask('stop')); }
// May come before the first numbers. What was refused is told until the next request.
function told(answer) {
  P.refused = answer && answer.ok ? null : answer ? answer.error : { message: 'no answer from the program', hint: 'Try again.' };
  if (!P.refused) P.compared = answer.what_if;
  drawWhatIf();
  if (answer && answer.ok) look();
}

// --- downloads ---
async function download(kind) {
  const answer = await ask('export', { kind });
  if (!answer || !answer.ok) { notice(answer ? sentence(answer.error) : 'No answer.'); return; }
  const url = URL.createObjectURL(new Blob([answer.text], { type: answer.type }));
  h('a', { href: url, download: answer.name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

// --- beginning ---
element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button) return;
  if (button.dataset.export) download(button.dataset.export);
  else if (button.dataset.do === 'stop') stop();
});
$('.pf-run').addEventListener('change', (event) => { event.target.blur(); choose(Number(event.target.value)); });
$('.pf-song select').addEventListener('change', (event) => {
  P.song = P.offered.find((run) => run.path === event.target.value) || null;
  drawWhatIf();
});
$('.pf-form').addEventListener('submit', compare);
document.addEventListener('visibilitychange', look);
new IntersectionObserver(look).observe(element);
let drawn = 0;
new ResizeObserver(() => {
  if (Math.abs(element.clientWidth - drawn) < 2 || !visible()) return;
  drawn = element.clientWidth;
  draw();
}).observe(element);
look();
