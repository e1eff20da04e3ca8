// The Review tab in the browser. The next songs are held here, so that a decision shows at once; what was decided waits
// in an outbox and is sent one at a time, in order, until the library has it on disk. `element`, `trigger` and `server`
// come from the HTML component that this is the code of; `acousticPicture` is the page's own (page.js).
const side = () => document.getElementById('review-side');
const $ = (selector, where = element) => where.querySelector(selector);
const HELD = 16, REFILL_BELOW = 12, RETRY_MS = 1500, STAY_MS = 300;
const OUTBOX = 'acousticsense-review-outbox', WHO = 'acousticsense-review-who';
const S = {
  token: '', who: '', notMusic: '', genres: [], items: [], reason: '', outbox: [], sending: false,
  done: [], taken: new Set(), album: null, asking: 0, again: false, loaded: false, since: 0, hidden: 0, progress: null,
  nSaved: 0, offline: false, wantPlay: false, sound: 0, busy: false, armed: '', batches: {},
};
const store = (place, key, value) => { try { place.setItem(key, value); } catch { /* private mode */ } };
const stored = (place, key) => { try { return place.getItem(key); } catch { return null; } };
const current = () => S.items[0];
const percent = (p) => (p > 0 && p < 0.005 ? '<1 %' : p >= 0.995 && p < 1 ? '>99 %' : `${Math.round(100 * p)} %`);
const clock = (s) => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, '0')}`;
const colourOf = (name) => (S.genres.find((g) => g.name === name) || {}).colour || 'var(--as-soft)';

// Everything from outside becomes text: no markup is ever made of it.
function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value == null) continue;
    if (name === 'style') node.style.cssText = value;
    else node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.filter((child) => child != null && child !== false));
  return node;
}
const bdi = (text, name = '') => h('bdi', name ? { class: name, title: text } : {}, text);
const dot = (name) => h('span', { class: 'as-dot', style: `background:${colourOf(name)}` });

// --- asking the library ---
async function ask(name, what = {}) {
  const answer = await server[`review_${name}`]({ token: S.token, who: S.who, ...what });
  if (answer && !answer.ok && answer.error.code === 'STALE') {
    const fresh = await server.review_open({ who: S.who, n: 0 });
    if (!fresh || !fresh.ok) return undefined;
    S.token = fresh.token;
    return server[`review_${name}`]({ token: S.token, who: S.who, ...what });
  }
  return answer;  // undefined: nobody answered
}
function notice(text) {
  const place = $('.rv-notice');
  place.textContent = text;
  place.hidden = !text;
}
const isName = (word) => /[./\\_]/.test(word.replace(/\.$/, ''));  // "song.mp3 is gone" keeps its name as it is
const begun = (words) => (isName(words.split(' ')[0]) ? words : `${words.charAt(0).toUpperCase()}${words.slice(1)}`);
const sentence = (error) => `${begun(error.message)}. ${error.hint || ''}`.replace('..', '.');

// --- the outbox: nothing in it is lost by a reload, nothing of it is kept twice ---
function keepOutbox() {
  store(sessionStorage, OUTBOX, JSON.stringify(S.outbox));
  const mark = $('.rv-saved'), n = S.outbox.length;
  mark.dataset.waiting = n;
  mark.dataset.saved = S.nSaved;
  mark.classList.toggle('rv-late', S.offline);
  mark.textContent = S.offline ? `${n} not saved yet: no answer, trying again` : n ? 'Saving …' : S.nSaved ? 'All saved ✓' : '';
}
function send(op) {
  S.outbox.push(op);
  keepOutbox();
  pump();
}
async function pump() {
  if (S.sending || !S.outbox.length) return;
  S.sending = true;
  const op = S.outbox[0];
  if (op.of && S.batches[op.of]) op.ask.batch = S.batches[op.of];
  const answer = await ask(op.what, op.ask);
  S.sending = false;
  if (!answer) {
    if (op.what === 'undo' && !op.ask.batch && !op.ask.decision) {  // sent again it might take back another step
      S.outbox.shift();
      notice('The step was perhaps not taken back: no answer. Look at the last decisions.');
    } else S.offline = true;
    keepOutbox();
    setTimeout(pump, RETRY_MS);
    return;
  }
  S.offline = false;
  S.outbox.shift();
  if (answer.ok) accepted(op, answer);
  else await refused(op, answer.error);
  keepOutbox();
  if (S.outbox.length) pump();
  else refresh();
}
function accepted(op, answer) {
  S.nSaved += 1;
  if (answer.batch) S.batches[op.step] = answer.batch;
  for (const id of answer.decided || []) { S.taken.add(id); drop(id); }
  if (op.what === 'undo') takeBack(op, answer.items);
}
// The song is back in the queue before the notice says so: whoever reads it finds the song behind the next key.
async function refused(op, error) {
  S.done = S.done.filter((one) => one.step !== op.step);
  S.outbox = S.outbox.filter((one) => one.of !== op.step);  // there is nothing to take back
  if (op.what !== 'undo' && op.ask.id) await bringBack(op, error);
  notice(sentence(error));
}
async function bringBack(op, error) {
  S.taken.delete(op.ask.id);
  const answer = await ask('item', { id: op.ask.id });
  const item = answer && answer.ok ? answer.items[0] : op.item;
  if (!item || S.items.some((one) => one.id === item.id)) return;
  item.refused = sentence(error);
  S.items.splice(S.items.length ? 1 : 0, 0, item);  // never under the fingers of somebody who is at the next song
  show(S.items.length === 1);
}
// Songs whose decision was taken back are next again, as the library has them now. The song that `u` brought back stays
// on show, and the others of its album follow; after a step from the list they come first.
function takeBack(op, items) {
  const waiting = new Set(S.outbox.flatMap(({ ask: { id, ids = [] } }) => [id, ...ids])), back = [];
  for (const item of items || []) {
    if (waiting.has(item.id)) continue;  // it was decided anew meanwhile
    S.taken.delete(item.id);
    const held = S.items.find((one) => one.id === item.id);
    if (held) held.expected = item.expected; else back.push(item);
  }
  const first = !op.item || !S.items.length;
  S.items.splice(first ? 0 : 1, 0, ...back);
  if (back.length) show(first);
}
const drop = (id) => {
  const at = S.items.findIndex((one) => one.id === id);
  if (at > 0) S.items.splice(at, 1);
  else if (!at) { S.items.shift(); show(true); }
};

// --- what the library says: the next songs, how far, what was decided ---
async function refresh() {
  if (S.asking || !S.loaded) { S.again = true; return; }
  S.asking += 1;
  const hold = [...S.items.map((one) => one.id), ...S.outbox.map((op) => op.ask.id).filter(Boolean)];
  const answer = await ask('state', { reason: S.reason, hold, n: Math.max(0, HELD - S.items.length) });
  S.asking -= 1;
  if (answer && answer.ok) take(answer);
  else if (answer) notice(sentence(answer.error));
  if (S.again) { S.again = false; refresh(); }
}
function take(answer) {
  const empty = !S.items.length, first = current();
  const taken = new Set(answer.taken.filter((id) => !first || id !== first.id));
  S.items = S.items.filter((one) => !taken.has(one.id) || one.decided != null || one.refused || one.back);
  const held = new Set([...S.items.map((one) => one.id), ...S.outbox.map((op) => op.ask.id)]);
  S.items.push(...answer.items.filter((one) => !held.has(one.id) && !S.taken.has(one.id)));
  S.genres = answer.genres;
  if (!S.outbox.length) S.progress = answer.progress;
  showSide(answer);
  show(empty);
}

// --- deciding ---
function seconds() {
  const until = document.hidden ? S.hidden : performance.now();
  return Math.max(0, (until - S.since) / 1000);
}
const newStep = () => (crypto.randomUUID ? crypto.randomUUID() : `${Date.now()}-${Math.random().toString(36).slice(2)}`);
function decide(genre, kind = 'genre') {
  const item = current();
  if (!item) return;
  const player = $('audio'), step = newStep();
  const common = { step, id: item.id, genre, who: S.who, took_s: seconds() };
  S.wantPlay = !player.paused && !player.ended;
  S.done.push({ step, item, skip: kind === 'skip' });
  S.taken.add(item.id);
  S.items.shift();
  notice('');
  if (kind === 'skip') S.taken.delete(item.id);
  if (S.album && kind !== 'skip') {
    const ids = S.album.songs.filter((one) => !one.decided).map((one) => one.id);
    S.items = S.items.filter((one) => !ids.includes(one.id));
    send({ step, what: 'decide_album', item, ask: { ...common, ids } });
  } else send({ step, what: 'decide', item, ask: { ...common, kind, expected: item.expected } });
  count(kind === 'skip' ? 0 : -1);
  show(true);
  if (S.items.length < REFILL_BELOW) refresh();
}
function skip() {
  const item = current();
  if (item && item.decided != null) { S.items.shift(); notice(''); show(true); }  // it stays as somebody decided it
  else decide(null, 'skip');
}
function undo() {
  const step = S.done.pop();
  notice('');
  if (!step) { send({ step: newStep(), what: 'undo', ask: {} }); return; }
  if (!step.skip) count(1);
  S.taken.delete(step.item.id);
  S.items = S.items.filter((one) => one.id !== step.item.id);
  step.item.back = true;
  S.items.unshift(step.item);
  const at = S.outbox.findIndex((op) => op.step === step.step);
  if (at > 0 || (at === 0 && !S.sending)) { S.outbox.splice(at, 1); keepOutbox(); }  // it was never sent
  else send({ step: newStep(), what: 'undo', of: step.step, item: step.item, ask: { id: step.item.id, batch: step.step } });
  show(true);
}
function undoNamed(id, track) {
  S.done = S.done.filter((one) => one.item.id !== track);
  send({ step: newStep(), what: 'undo', ask: { decision: id } });
}
function count(by) {
  if (!S.progress) return;
  S.progress.n_left += by;
  S.progress.n_decided -= by;
  showNumbers();
}

// --- the album ---
async function toggleAlbum() {
  const item = current();
  if (S.album || !item) { S.album = null; showAlbum(); return; }
  const answer = await ask('album', { id: item.id });
  if (current() !== item) return;
  if (!answer || !answer.ok) { notice(answer ? sentence(answer.error) : 'No answer.'); return; }
  S.album = { id: item.id, songs: answer.songs };
  showAlbum();
}
function showAlbum() {
  const place = $('.rv-album');
  place.hidden = !S.album;
  $('[data-do=album]').setAttribute('aria-pressed', String(Boolean(S.album)));
  element.querySelector('.rv-song').classList.toggle('rv-whole', Boolean(S.album));
  if (!S.album) { place.replaceChildren(); return; }
  const open = S.album.songs.filter((one) => !one.decided).length;
  const words = open
    ? `Your next choice is for this song and ${open} other${open > 1 ? 's' : ''} of the album:`
    : 'No other song of the album is undecided.';
  place.replaceChildren(h('p', {}, h('strong', {}, words), ' ', h('kbd', {}, 'Esc'), ' leaves it at this song.'), h('ul', {},
    ...S.album.songs.map((one) => h('li', { class: one.decided ? 'rv-decided' : '' }, bdi(one.name), one.decided ? ' – stays as decided' : ''))));
}

// --- showing ---
function show(fresh) {
  const item = current();
  $('.rv-song').hidden = !item;
  $('.rv-empty').hidden = Boolean(item);
  if (!item) {
    const left = S.progress ? S.progress.n_left : 0;
    $('.rv-empty').replaceChildren(...(S.loaded && !S.asking && left <= 0 && !S.reason
      ? [h('p', {}, h('strong', {}, 'Nothing waits for you.')), h('p', {}, 'Songs come here when a scan finds some that the model is unsure of. Learn from your decisions, so that there will be fewer.')]
      : S.loaded && !S.asking ? [h('p', {}, h('strong', {}, 'No other song was flagged for this reason.'))]
        : [h('p', {}, h('strong', {}, 'One moment …'))]));
  }
  showQueue();
  showNumbers();
  if (!item) { $('audio').removeAttribute('src'); $('audio').load(); return; }
  if (!fresh && S.shown === item.id) { showTop(item); return; }
  S.shown = item.id;
  S.since = performance.now();
  S.album = null;
  showAlbum();
  $('.rv-name').textContent = item.name;
  $('.rv-by').replaceChildren(...[item.artist, item.album, item.year].filter(Boolean).flatMap((t, i) => [i ? ' · ' : '', bdi(t)]));
  const path = $('.rv-path bdi');
  path.textContent = path.title = item.path;
  $('.rv-why').textContent = item.refused ? `${item.refused} ${item.why}` : item.why;
  $('.rv-why').classList.toggle('rv-refused', Boolean(item.refused));
  showTop(item);
  showSegments(item);
  listen(item);
}
function showTop(item) {
  $('.rv-top').replaceChildren(...item.ranked.slice(0, 3).map(([name, p], i) => h('button', {
    type: 'button', class: 'rv-choice', 'data-genre': name, 'aria-pressed': String(item.decided === name) },
  h('kbd', {}, String(i + 1)), h('span', { class: 'rv-genre' }, dot(name), bdi(name)), h('span', { class: 'rv-share' }, percent(p)),
  h('span', { class: 'as-bar' }, h('span', { style: `width:${(100 * p).toFixed(1)}%;background:${colourOf(name)}` })))));
  const genres = JSON.stringify(S.genres), chips = $('.rv-chips');
  if (S.chips !== genres) {
    S.chips = genres;
    chips.replaceChildren(...S.genres.map((g) => h('button', { type: 'button', class: g.own ? 'rv-chip rv-own' : 'rv-chip',
      'data-genre': g.name, title: g.own ? 'A genre of your own' : null }, dot(g.name), bdi(g.name))));
  }
  for (const chip of chips.children) chip.setAttribute('aria-pressed', String(item.decided === chip.dataset.genre));
}
function showSegments(item) {
  $('.rv-segments').replaceChildren(...item.segments.map(([start, end, genre, p]) => h('li', {}, h('button', {
    type: 'button', class: start === item.listen_s ? 'rv-segment rv-doubt' : 'rv-segment', 'data-start': start, 'data-end': end,
    'aria-label': `Play from ${clock(start)}: ${genre}, ${percent(p)}${start === item.listen_s ? ', the most ambiguous segment' : ''}` },
  dot(genre), h('span', {}, bdi(genre), ` ${percent(p)}`), h('span', { class: 'rv-time' }, clock(start))))));
}
function showQueue() {
  const place = side() && $('.rv-queue', side());
  if (!place) return;
  place.replaceChildren(...S.items.slice(1, 6).map((one) => h('li', {}, bdi(one.name, 'rv-cut'),
    h('span', {}, `${one.ranked[0][0]} ${percent(one.ranked[0][1])}`))));
  if (S.items.length < 2) place.append(h('li', { class: 'rv-none' }, 'Nothing more.'));
}
function showNumbers() {
  if (!side() || !S.progress) return;
  for (const place of side().querySelectorAll('[data-number]')) {
    const value = S.progress[place.dataset.number];
    place.textContent = typeof value === 'number' ? Math.max(0, value).toLocaleString('en') : value;
  }
}
function showSide(answer) {
  if (!side()) return;
  const filter = $('.rv-reason', side()), who = $('.rv-who', side());
  filter.replaceChildren(h('option', { value: '' }, 'any reason'), ...answer.reasons.map(([code, words, n]) => h('option', { value: code }, `${words} (${n})`)));
  if (S.reason && !answer.reasons.some(([code]) => code === S.reason)) filter.append(h('option', { value: S.reason }, 'this reason (0)'));
  filter.value = S.reason;
  if (document.activeElement !== who) who.value = S.who;
  $('.rv-chart', side()).innerHTML = answer.progress.reliability;  // of numbers alone, made by the program
  if (!S.busy && !$('[data-do=accept], [data-do=discard]', side())) $('.rv-lesson', side()).innerHTML = answer.lesson;  // escaped there
  $('.rv-history', side()).replaceChildren(...answer.history.map((one) => h('li', { class: one.undone ? 'rv-undone' : '' },
    h('div', {}, bdi(one.name, 'rv-cut'), h('span', { class: 'rv-line' }, bdi(one.said), ' · ', bdi(one.who), ' · ',
      h('time', { datetime: one.at }, new Date(one.at).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' })))),
    one.undone ? h('span', { class: 'rv-line' }, 'undone') : h('button', { type: 'button', class: 'rv-small', 'data-undo': one.id, 'data-track': one.track, 'aria-label': `Undo: ${one.name}, ${one.said}` }, 'Undo'))));
  if (!answer.history.length) $('.rv-history', side()).append(h('li', { class: 'rv-none' }, 'None yet.'));
}

// --- sound and picture ---
async function listen(item) {
  const player = $('audio'), turn = ++S.sound, note = $('.rv-unplayable');
  player.pause();
  note.hidden = true;
  stale();
  await new Promise((soon) => setTimeout(soon, 60));  // keys may follow each other faster than files can be copied
  if (turn !== S.sound) return;
  const answer = await ask('listen', { id: item.id });
  if (turn !== S.sound) return;
  if (!answer || !answer.ok) {
    note.textContent = answer ? sentence(answer.error) : 'No answer.';
    note.hidden = false;
    player.removeAttribute('src');
  } else {
    player.src = answer.url;
    player.addEventListener('loadedmetadata', () => {
      if (turn !== S.sound) return;
      player.currentTime = Math.min(item.listen_s, Math.max(0, player.duration - 1));
      if (S.wantPlay) player.play().catch(() => {});
    }, { once: true });
    player.load();
  }
  askPicture(item, turn);
}
// Asked for again where it does not come: the page may not have listened yet, or a busy server may have let it fall.
async function askPicture(item, turn) {
  for (const wait_ms of [STAY_MS, 4000, 8000, 16000, 32000]) {
    await new Promise((soon) => setTimeout(soon, wait_ms));
    if (turn !== S.sound || isOf(plot(), item)) return;
    trigger('picture', { track: item.id });
  }
}
function togglePlay() {
  const player = $('audio');
  if (!player.src) { S.wantPlay = true; return; }
  if (player.paused) { S.wantPlay = true; player.play().catch(() => {}); } else { S.wantPlay = false; player.pause(); }
}
function playFrom(seconds) {
  const player = $('audio');
  if (!player.src || player.readyState < 1) return;
  player.currentTime = Math.max(0, seconds);
  S.wantPlay = true;
  player.play().catch(() => {});
}
const plot = () => document.querySelector('#review-plot .js-plotly-plot');
const isOf = (gd, item) => Boolean(gd && item && gd.layout && gd.layout.meta && gd.layout.meta.track === item.id);
// The picture follows a moment later; until then the one of the song before is not shown.
function stale() {
  const place = document.getElementById('review-picture');
  if (place) place.classList.toggle('rv-stale', !isOf(plot(), current()));
}
function dress() {
  const gd = plot();
  if (!gd || !gd.on || !gd._fullLayout) return;
  if (!gd.dataset.dressed) {
    gd.dataset.dressed = 'yes';
    gd.setAttribute('role', 'img');
    gd.setAttribute('aria-label', 'Mel spectrogram of the song over time, with the segments that the model heard below it');
    gd.on('plotly_afterplot', () => { stale(); playhead(); });
    gd.on('plotly_click', (data) => playFrom(window.acousticPicture.momentOf(gd, data.event)));
  }
  stale();
  if (isOf(gd, current()) && S.items[1] && S.prepared !== S.items[1].id) {
    S.prepared = S.items[1].id;
    setTimeout(() => { if (S.items[1] && S.items[1].id === S.prepared) ask('prepare', { id: S.prepared }); }, 500);
  }
}
function playhead() {
  const gd = plot(), player = $('audio');
  for (const button of element.querySelectorAll('.rv-segment')) {
    const inside = player.currentTime >= Number(button.dataset.start) && player.currentTime < Number(button.dataset.end);
    button.classList.toggle('rv-now', inside && !player.paused);
  }
  if (gd) window.acousticPicture.layOver(gd, player.currentTime, isOf(gd, current()));
}
function follow() {
  playhead();
  const player = $('audio');
  if (!player.paused && !player.ended) requestAnimationFrame(follow);
}

// --- finding a genre ---
const fold = (text) => text.normalize('NFKD').toLowerCase().replace(/[\p{M}\s\-_'’.·]/gu, '');
function found(text) {
  const wanted = fold(text), names = S.genres.map((g) => g.name);
  const rank = (name) => (fold(name).startsWith(wanted) ? 0 : fold(name).includes(wanted) ? 1 : 2);
  const likely = new Map((current() ? current().ranked : []).map(([name, p]) => [name, p]));
  return names.filter((name) => rank(name) < 2).sort((a, b) => rank(a) - rank(b) || (likely.get(b) || 0) - (likely.get(a) || 0));
}
function openSearch(text) {
  if (!current()) return;
  $('.rv-search').hidden = false;
  const input = $('.rv-search input');
  input.value = text;
  input.focus();
  S.at = 0;
  showFound();
}
function showFound() {
  const text = $('.rv-search input').value.trim(), names = found(text);
  const exact = names.some((name) => fold(name) === fold(text));
  S.armed = S.armed === text ? text : '';
  const options = names.map((name) => ({ name, parts: [dot(name), bdi(name)] }));
  if (text && !exact) {
    const words = S.armed ? 'Enter again: a new genre of your own, ' : 'A new genre of your own: ';
    options.push({ name: text, isNew: true, parts: [words, bdi(text)] });
  }
  S.options = options;
  S.at = Math.max(0, Math.min(S.at, options.length - 1));
  $('.rv-search ul').replaceChildren(...options.map((one, i) => h('li', { role: 'option', id: `rv-found-${i}`, 'data-at': i,
    'aria-selected': String(i === S.at), class: one.isNew ? 'rv-new' : '' }, ...one.parts)));
  const chosen = $('.rv-search [aria-selected=true]');
  if (chosen) { chosen.scrollIntoView({ block: 'nearest' }); $('.rv-search input').setAttribute('aria-activedescendant', chosen.id); }
}
function takeFound(sure) {
  const one = S.options[S.at];
  if (!one) return;
  if (one.isNew && !sure && S.armed !== one.name) { S.armed = one.name; showFound(); return; }  // a slip makes no genre
  closeOver();
  decide(one.name);
}
function closeOver() {
  for (const over of element.querySelectorAll('.rv-over')) over.hidden = true;
  S.armed = '';
  if (document.activeElement && element.contains(document.activeElement)) document.activeElement.blur();
}
const isOpen = () => [...element.querySelectorAll('.rv-over')].some((over) => !over.hidden);

// --- learning ---
async function lesson(button) {
  const what = button.dataset.do.replace('-', '_'), told = $('.rv-told', side());
  if (S.busy || !['learn', 'accept', 'discard', 'roll_back'].includes(what)) return;
  S.busy = true;
  for (const other of side().querySelectorAll('[data-do]')) other.disabled = true;
  told.textContent = what === 'discard' ? '' : 'One moment …';
  const look = setInterval(async () => {
    const now = await ask('told');
    if (S.busy && now && now.ok && now.told) told.textContent = now.told;
  }, 400);
  const answer = await ask(what, { offer: button.dataset.offer || '', version: button.dataset.version || '' });
  clearInterval(look);
  S.busy = false;
  if (what === 'learn' && answer && answer.ok) { $('.rv-lesson', side()).innerHTML = answer.html; told.textContent = ''; return; }
  told.textContent = !answer ? 'No answer: look again in a moment.' : answer.ok ? answer.told : sentence(answer.error);
  for (const other of side().querySelectorAll('[data-do]')) other.disabled = false;
  if (what !== 'learn') {
    $('.rv-lesson', side()).replaceChildren();
    S.items = [];  // all were read anew, the one on show too
    show(true);
    refresh();
  }
}

// --- keys ---
const visible = () => element.isConnected && element.getClientRects().length > 0;
const typing = (target) => target.closest && target.closest('input, textarea, select, [contenteditable=true]');
function onKey(event) {
  if (!element.isConnected) { document.removeEventListener('keydown', onKey); return; }
  if (!visible() || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || event.isComposing) return;
  const key = event.key, target = event.target;
  if (key === 'Escape') {
    if (isOpen()) closeOver(); else if (S.album) toggleAlbum(); else if (typing(target)) target.blur(); else return;
    event.preventDefault();
    return;
  }
  if (typing(target)) return;
  if (isOpen()) { if (key === '?') { closeOver(); event.preventDefault(); } return; }
  const mine = element.contains(target) || (side() && side().contains(target));
  if (key === ' ' && mine && target.closest('button, summary, audio')) return;  // what has the focus takes the space
  if (key === ' ') { event.preventDefault(); if (!event.repeat) togglePlay(); return; }
  if (key.length !== 1) return;
  event.preventDefault();
  if (event.repeat) return;  // a key that is held down decides one song
  const item = current();
  if ('123'.includes(key)) { if (item && item.ranked[key - 1]) decide(item.ranked[key - 1][0]); }
  else if (key === 's') skip();
  else if (key === 'u') undo();
  else if (key === 'n') decide(S.notMusic);
  else if (key === '/') openSearch('');
  else if (key === '?') $('.rv-help').hidden = false;
  else if (key === '+') toggleAlbum();
  else if (/\p{L}/u.test(key)) openSearch(key);
}
function onClick(event) {
  const button = event.target.closest('button, [role=option]');
  if (!button) { if (event.target.classList.contains('rv-over')) closeOver(); return; }
  if (event.detail > 0) button.blur();  // after a click of the mouse the keys belong to the page again
  const todo = button.dataset.do;
  if (button.dataset.genre !== undefined) decide(button.dataset.genre);
  else if (button.dataset.at !== undefined) { S.at = Number(button.dataset.at); takeFound(true); }
  else if (button.dataset.start !== undefined) playFrom(Number(button.dataset.start));
  else if (button.dataset.undo !== undefined) undoNamed(Number(button.dataset.undo), Number(button.dataset.track));
  else if (todo === 'search') openSearch('');
  else if (todo === 'not-music') decide(S.notMusic);
  else if (todo === 'skip') skip();
  else if (todo === 'undo') undo();
  else if (todo === 'album') toggleAlbum();
  else if (todo === 'help') $('.rv-help').hidden = false;
  else if (todo === 'close') closeOver();
  else if (todo) lesson(button);
}
element.addEventListener('click', onClick);
document.addEventListener('keydown', onKey);
$('.rv-search input').addEventListener('input', () => { S.at = 0; showFound(); });
$('.rv-search input').addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && !event.isComposing) { event.preventDefault(); if (!event.repeat) takeFound(false); }
  else if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
    event.preventDefault();
    S.at += event.key === 'ArrowDown' ? 1 : -1;
    showFound();
  }
});
for (const kind of ['play', 'pause', 'seeked', 'timeupdate']) {
  $('audio').addEventListener(kind, () => (kind === 'play' ? follow : playhead)());
}
$('audio').addEventListener('play', (event) => {
  for (const other of document.querySelectorAll('audio')) if (other !== event.target) other.pause();
});
$('audio').addEventListener('error', () => {
  if (!$('audio').getAttribute('src')) return;
  $('.rv-unplayable').textContent = 'This browser cannot play this kind of file. You can decide it all the same.';
  $('.rv-unplayable').hidden = false;
});
document.addEventListener('visibilitychange', () => {
  if (document.hidden) S.hidden = performance.now();
  else { S.since += performance.now() - S.hidden; if (visible()) refresh(); }
});
new MutationObserver(dress).observe(document.body, { childList: true, subtree: true });
window.addEventListener('resize', () => requestAnimationFrame(playhead));
let wasVisible = false;
new IntersectionObserver(() => {
  const now = visible();
  if (now && !wasVisible) refresh();  // the tab was chosen: a scan may have found new songs
  if (!now) $('audio').pause();
  wasVisible = now;
}).observe(element);

// --- beginning ---
async function begin() {
  while (!side() || !$('.rv-queue', side())) await new Promise((soon) => setTimeout(soon, 30));
  side().addEventListener('click', onClick);
  $('.rv-reason', side()).addEventListener('change', (event) => {
    S.reason = event.target.value;
    S.items = [];
    event.target.blur();
    refresh();
    show(true);
  });
  $('.rv-who', side()).addEventListener('change', (event) => {
    S.who = event.target.value.trim() || S.login;
    store(localStorage, WHO, S.who);
    S.done = [];
    refresh();
  });
  window.addEventListener('beforeunload', (event) => { if (S.outbox.length) event.preventDefault(); });
  const found = JSON.parse(stored(sessionStorage, OUTBOX) || '[]');
  // sent again, "take back the last step" might take back another: what was under way then is told, not repeated
  const left = found.filter((op) => op.what !== 'undo' || op.of || op.ask.batch || op.ask.decision);
  const hold = left.map((op) => op.ask.id).filter(Boolean);
  let answer;
  while (!(answer = await server.review_open({ who: stored(localStorage, WHO) || '', hold, n: HELD }))) {
    await new Promise((soon) => setTimeout(soon, RETRY_MS));
  }
  if (!answer.ok) { $('.rv-empty').replaceChildren(h('p', {}, h('strong', {}, sentence(answer.error)))); return; }
  Object.assign(S, { token: answer.token, who: answer.who, login: answer.who, notMusic: answer.not_music, loaded: true });
  S.outbox = left;
  for (const op of left) if (op.what !== 'undo' && op.ask.kind !== 'skip') S.taken.add(op.ask.id);
  take(answer);
  S.progress = answer.progress;
  show(true);
  keepOutbox();
  pump();
  if (left.length < found.length) notice('The step was perhaps not taken back: no answer. Look at the last decisions.');
}
begin();
