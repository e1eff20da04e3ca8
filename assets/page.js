// What the page does in the browser: light and dark, playing from a segment, a playhead over the spectrogram.
(() => {
  'use strict';
  const KEY = 'acousticsense-theme';
  const stored = () => { try { return localStorage.getItem(KEY); } catch { return null; } };
  const systemDark = window.matchMedia('(prefers-color-scheme: dark)');

  // --- light and dark: the person's choice, else the system's ---
  function applyTheme() {
    const choice = stored();
    if (!choice || !document.body) return;
    const dark = choice === 'dark';
    if (document.body.classList.contains('dark') !== dark) document.body.classList.toggle('dark', dark);
  }
  function toggleTheme() {
    const next = document.body.classList.contains('dark') ? 'light' : 'dark';
    try { localStorage.setItem(KEY, next); } catch { /* private mode: the choice lasts as long as the page */ }
    document.body.classList.toggle('dark', next === 'dark');
  }
  new MutationObserver(applyTheme).observe(document.body, { attributes: true, attributeFilter: ['class'] });
  applyTheme();
  systemDark.addEventListener('change', applyTheme);

  // --- plotly is large: it is fetched and started while the person looks for a song, not when the answer is there ---
  const PLOTLY = '{{plotly}}';
  const idle = window.requestIdleCallback || ((work) => setTimeout(work, 300));
  const warmUp = () => idle(() => import(new URL(`assets/${PLOTLY}`, document.baseURI).href).catch(() => {}));
  if (PLOTLY) {
    const ready = new MutationObserver(() => {
      if (document.getElementById('drop')) { ready.disconnect(); setTimeout(warmUp, 200); }
    });
    ready.observe(document.body, { childList: true, subtree: true });
  }

  // --- decisions that a reload left unsent: the Review tab sends them, so it is opened and they do not wait ---
  const unsent = () => { try { return sessionStorage.getItem('acousticsense-review-outbox') || '[]'; } catch { return '[]'; } };
  if (unsent() !== '[]') {
    const toReview = new MutationObserver(() => {
      const tabs = [...document.querySelectorAll('#tabs button[role=tab]')];
      const review = tabs.find((tab) => tab.textContent.trim() === 'Review');
      if (review) { toReview.disconnect(); review.click(); }
    });
    toReview.observe(document.body, { childList: true, subtree: true });
  }

  // --- the player ---
  const audio = () => document.querySelector('#player audio');
  const plot = () => document.querySelector('#track-plot .js-plotly-plot');

  function playFrom(seconds) {
    const player = audio();
    if (!player) return;
    const go = () => {
      player.currentTime = seconds;
      player.play().catch(() => { /* the error event says why */ });
    };
    if (player.readyState >= 1) go();
    else { player.addEventListener('loadedmetadata', go, { once: true }); player.load(); }
  }

  // --- a picture of a track over time, also the Review tab's: where a moment lies, and which moment was clicked ---
  // The playhead lies over the plot, at the place that plotly's own axis gives; it is hidden beyond the picture's ends.
  function layOver(gd, seconds, wanted) {
    const layout = gd._fullLayout;
    if (!layout || ![layout.xaxis2, layout.yaxis, layout.yaxis2].every((axis) => axis && axis._length > 0)) return;
    let head = gd.querySelector('.as-playhead');
    if (!head) {
      head = document.createElement('div');
      head.className = 'as-playhead';
      gd.appendChild(head);
    }
    const axis = layout.xaxis2, [low, high] = axis.range;
    const share = (seconds - low) / (high - low);
    head.hidden = !(wanted && share >= 0 && share <= 1);
    head.style.left = `${axis._offset + share * axis._length}px`;
    head.style.top = `${layout.yaxis._offset}px`;
    head.style.height = `${layout.yaxis2._offset + layout.yaxis2._length - layout.yaxis._offset}px`;
  }
  function momentOf(gd, event) {
    const axis = gd._fullLayout.xaxis2;
    const x = event.clientX - gd.getBoundingClientRect().left - axis._offset;
    return Math.max(0, axis.range[0] + (x / axis._length) * (axis.range[1] - axis.range[0]));
  }
  window.acousticPicture = { layOver, momentOf };

  function movePlayhead() {
    const player = audio(), gd = plot();
    if (!player) return;
    for (const button of document.querySelectorAll('#player .as-segment')) {
      const inside = player.currentTime >= Number(button.dataset.start) && player.currentTime < Number(button.dataset.end);
      button.classList.toggle('as-now', inside);
      button.setAttribute('aria-pressed', String(inside && !player.paused));
    }
    if (gd) layOver(gd, player.currentTime, player.currentTime > 0);
  }
  function follow() {
    movePlayhead();
    const player = audio();
    if (player && !player.paused && !player.ended) requestAnimationFrame(follow);
  }

  // A click on the spectrogram or on a segment's rectangle plays from there.
  function dressPlot(gd) {
    if (gd.dataset.dressed || !gd.on) return;
    gd.dataset.dressed = 'yes';
    gd.on('plotly_click', (data) => playFrom(momentOf(gd, data.event)));
    movePlayhead();
  }
  function label(selector, words) {
    const gd = document.querySelector(`${selector} .js-plotly-plot`);
    if (gd && !gd.hasAttribute('aria-label')) { gd.setAttribute('role', 'img'); gd.setAttribute('aria-label', words); }
  }
  new MutationObserver(() => {
    const gd = plot();
    if (gd) dressPlot(gd);
    label('#track-plot', 'Mel spectrogram of the track over time, with the segments that the model heard below it');
    label('#timings-plot', 'Milliseconds of each stage, one after another');
  }).observe(document.body, { childList: true, subtree: true });

  document.addEventListener('click', (event) => {
    if (event.target.closest('#as-theme')) toggleTheme();
    const segment = event.target.closest('.as-segment');
    if (segment) {
      const player = audio();
      if (segment.classList.contains('as-now') && player && !player.paused) player.pause();
      else playFrom(Number(segment.dataset.start));
    }
  });
  // media events do not bubble, but they can be captured
  for (const kind of ['play', 'pause', 'seeked', 'timeupdate']) {
    document.addEventListener(kind, (event) => { if (event.target === audio()) (kind === 'play' ? follow : movePlayhead)(); }, true);
  }
  document.addEventListener('error', (event) => {
    if (event.target === audio()) document.querySelector('#player .as-unplayable').hidden = false;
  }, true);
  document.addEventListener('loadstart', (event) => {
    if (event.target === audio()) document.querySelector('#player .as-unplayable').hidden = true;
  }, true);
  window.addEventListener('resize', () => requestAnimationFrame(movePlayhead));
})();
