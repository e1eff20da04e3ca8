// What a click in the library's HTML does is written in the element: data-do says what, data-value to which.
// `element`, `trigger` and `watch` are given by Gradio.
const tell = (what, value) => trigger('select', { do: what, value: value ?? '' });

element.addEventListener('click', (event) => {
  const control = event.target.closest('[data-do]');
  if (control) {
    const isOff = control.type === 'checkbox' && !control.checked;
    tell(isOff ? `un${control.dataset.do}` : control.dataset.do, control.dataset.value);
    return;
  }
  const row = event.target.closest('tr[data-id]');
  if (row && !String(getSelection())) tell('choose', row.dataset.id);  // not while text is being marked
});

// --- the player: starts when it is told to, and silences whatever else sounds ---
let played = 0;
function refresh() {
  // a box that a person has ticked no longer follows its attribute by itself
  for (const box of element.querySelectorAll('input[type=checkbox]')) box.checked = box.hasAttribute('checked');
  const audio = element.querySelector('audio[data-plays]');
  if (!audio) return;
  const plays = Number(audio.dataset.plays);
  if (plays > played) {
    played = plays;
    audio.play().catch(() => { /* the error event says why, or the browser waits for a click */ });
  }
}
const unplayable = (event, hidden) => {
  const words = event.target.closest('.as-now-sound')?.querySelector('.as-unplayable');
  if (words) words.hidden = hidden;
};
element.addEventListener('error', (event) => unplayable(event, false), true);
element.addEventListener('loadedmetadata', (event) => unplayable(event, true), true);
element.addEventListener('play', (event) => {
  for (const other of document.querySelectorAll('audio')) if (other !== event.target) other.pause();
}, true);

// --- a file that was made for the person: fetched as soon as it is there ---
let fetched = '';
function fetchFile() {
  const link = element.querySelector('a[download]');
  if (link && link.dataset.made !== fetched) { fetched = link.dataset.made; link.click(); }
}

watch('value', () => { refresh(); fetchFile(); });
refresh();
