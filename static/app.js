// app.js: the frame of every page, and which module draws it. What a page will wait for is asked for at once: its module, and
// the models, which every page names.

import { failure, h, setTitle, show, startTips } from './dom.js';
import { models } from './api.js';

const parts = location.pathname.split('/').filter(Boolean).map(decodeURIComponent);
const query = new URLSearchParams(location.search);
const embedded = parts.length === 3 && query.get('embed') === 'true';

const fixed = { steer: './steer.js', inspect: './inspect.js', lab: './lab.js', direction: './direction.js', graph: './graph.js', jobs: './jobs.js', list: './list.js', 'quick-list': './quicklist.js' };
const subjects = ['./home.js', './model.js', './source.js', parts[2] === 'map' ? './map.js' : './feature.js'];

const page = import(fixed[parts[0]] ?? subjects[Math.min(parts.length, 3)]);
page.catch(() => {}); // told below, where it is waited for
models().catch(() => {});

function savedTheme(theme) {
  try {
    if (theme) localStorage.setItem('steerd-theme', theme);
    return localStorage.getItem('steerd-theme');
  } catch {
    return theme; // a frame without storage
  }
}

function useTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
}

function themeButton() {
  const isDark = () => (document.documentElement.dataset.theme ?? (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark';
  const button = h('button', { class: 'quiet end', type: 'button', onclick: () => { useTheme(savedTheme(isDark() ? 'light' : 'dark')); name(); } });
  const name = () => { button.textContent = isDark() ? 'Light' : 'Dark'; button.setAttribute('aria-label', `Switch to ${isDark() ? 'light' : 'dark'} colours`); };
  name();
  return button;
}

function frame() {
  const links = [['/', 'Home'], ['/steer', 'Steer'], ['/inspect', 'Inspect'], ['/lab', 'Lab'], ['/graph', 'Graph'], ['/list', 'Lists'], ['/jobs', 'Jobs'], ['/docs', 'API']];
  const here = `/${parts[0] ?? ''}`;
  show(document.getElementById('top'),
    h('a', { class: 'brand', href: '/' }, h('img', { src: '/static/icon.svg', alt: '', width: 26, height: 26 }), 'steerd'),
    h('nav', { 'aria-label': 'Pages' }, links.map(([href, text]) => h('a', { href, 'aria-current': href === here ? 'page' : null }, text))),
    themeButton());
}

async function draw() {
  const main = document.getElementById('main');
  try {
    await (await page).draw(main, fixed[parts[0]] ? parts.slice(1) : parts, query);
  } catch (error) {
    setTitle(error.status === 404 ? 'Not found' : 'Error');
    show(main, !embedded && h('div', { class: 'head' }, h('h1', {}, error.status === 404 ? 'There is nothing here' : 'This page cannot be shown')),
      failure(error, () => location.reload()), !embedded && h('p', { class: 'lead' }, h('a', { href: '/' }, 'What is loaded'), ', ', h('a', { href: '/docs' }, 'what can be asked')));
    if (!error.status) console.error(error.message);
  }
}

useTheme(savedTheme());
if (embedded) document.body.classList.add('embed');
else frame();
startTips();
draw();
// A setup that is pasted over this one's, or gone back to, is drawn; pages keep their own by replaceState, which is not told here.
if (fixed[parts[0]]) addEventListener('hashchange', () => location.hash.includes('=') && draw());
