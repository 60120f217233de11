'use strict';
// Builds the page from the JSON in #data; see mtl_perception/offline/page.py for its form.
// Text goes in as text, never as HTML.

const page = JSON.parse(document.getElementById('data').textContent);
const byId = (id) => document.getElementById(id);
const root = document.documentElement;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// --- tables and plots ---------------------------------------------------------------------------

// Numbers stay whole; text may break, so that a path does not push the figures out of a small screen.
const cell = (text) => element('td', { className: /^[\d+–.e %-]*$/.test(text) ? '' : 'text' }, text);

function table(data) {
  const head = element('tr', {}, ...data.columns.map((t) => element('th', { scope: 'col' }, t)));
  const rows = data.rows.map(([name, ...cells]) =>
    element('tr', {}, element('th', { scope: 'row' }, name), ...cells.map(cell)));
  const made = element('table', {}, element('caption', {}, data.title),
    element('thead', {}, head), element('tbody', {}, ...rows));
  // What scrolls must be reachable by keyboard, and a region that can be reached has a name.
  const frame = element('div', { className: 'scroll', tabIndex: 0 }, made);
  frame.setAttribute('role', 'region');
  frame.setAttribute('aria-label', data.title);
  return frame;
}

const shown = (value) => (typeof value === 'number' ? String(Number(value.toPrecision(3))) : value ?? '–');

// The numbers of a plot, for who cannot see it.
function numbers(plot) {
  const places = [...new Set(plot.series.flatMap((s) => s.x))];
  const values = plot.series.map((s) => new Map(s.x.map((x, i) => [x, s.y[i]])));
  const rows = places.map((x) => [shown(x), ...values.map((v) => shown(v.get(x)))]);
  const columns = [plot.x_label, ...plot.series.map((s) => s.name || plot.y_label)];
  return { title: plot.title, columns, rows };
}

const PALETTES = {
  light: ['#0b63b0', '#c2410c', '#15803d', '#7e22ce', '#a16207', '#be185d', '#0e7490', '#475569'],
  dark: ['#7ab8f5', '#fb923c', '#4ade80', '#d8b4fe', '#facc15', '#f9a8d4', '#67e8f9', '#cbd5e1'],
};
const DASHES = ['solid', 'dash', 'dot', 'dashdot', 'longdash'];

// On a small screen every class has its name, and the scale goes: a table has the numbers.
const NARROW = 500;

function traces(plot, width) {
  if (plot.kind === 'heat') {
    return [{
      type: 'heatmap', x: plot.series[0].x, y: plot.series.map((s) => s.name), z: plot.series.map((s) => s.y),
      colorscale: 'Viridis', zmin: 0, zmax: 1, xgap: 1, ygap: 1, showscale: width > NARROW,
      hovertemplate: `%{y} → %{x}: %{z:.1%}<extra></extra>`,
    }];
  }
  const style = plot.kind === 'bars' ? () => ({ type: 'bar' }) : (i) => ({
    type: 'scatter', mode: plot.series[i].x.length > 60 ? 'lines' : 'lines+markers',
    line: { dash: DASHES[i % DASHES.length], width: 2 }, connectgaps: false,
  });
  const made = plot.series.map((s, i) => ({ ...style(i), name: s.name, x: s.x, y: s.y }));
  if (plot.diagonal) {
    made.push({ type: 'scatter', mode: 'lines', name: 'calibrated', x: [0, 1], y: [0, 1],
      line: { dash: 'dot', width: 1, color: '#888' } });
  }
  return made;
}

function layout(plot, width) {
  const style = getComputedStyle(root);
  const [ink, line] = [style.getPropertyValue('--ink').trim(), style.getPropertyValue('--line').trim()];
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
  const heat = plot.kind === 'heat';
  const every = { dtick: 1, tickfont: { size: 10 } };
  return {
    paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)', font: { color: ink, size: 12 },
    margin: { l: 48, r: 12, t: 8, b: 40 }, barmode: 'group',
    colorway: PALETTES[root.dataset.theme], showlegend: !heat && traces(plot, width).length > 1,
    legend: { orientation: 'h', y: 1.02, yanchor: 'bottom' },
    xaxis: { ...axis, title: { text: plot.x_label }, ...(heat ? { ...every, tickangle: -90 } : {}) },
    yaxis: { ...axis, title: { text: plot.y_label, standoff: 8 }, ...(heat ? { ...every, autorange: 'reversed' } : {}) },
  };
}

const plots = [];
const CONFIG = { responsive: true, displaylogo: false, scrollZoom: false,
  modeBarButtonsToRemove: ['lasso2d', 'select2d', 'autoScale2d'] };

function card(plot) {
  const box = element('div', { className: `plot ${plot.kind}` });
  box.setAttribute('role', 'img');
  box.setAttribute('aria-label', `${plot.title}: ${plot.y_label} by ${plot.x_label}. The numbers are in the table below.`);
  const details = element('details', {}, element('summary', {}, `Numbers: ${plot.title}`));
  // Long tables are only made for who opens them.
  details.addEventListener('toggle', () => {
    if (details.open && details.children.length === 1) details.append(table(numbers(plot)));
  });
  plots.push([box, plot]);
  return element('div', {}, element('h3', {}, plot.title),
    ...(plot.note ? [element('p', { className: 'note' }, plot.note)] : []), box, details);
}

function draw() {
  for (const [box, plot] of plots) {
    const width = box.clientWidth;
    Plotly.react(box, traces(plot, width), layout(plot, width), CONFIG);
    if (plot.over_time && page.film && !box.dataset.clicks) {
      box.dataset.clicks = 'yes';
      box.on('plotly_click', (event) => film.seek(event.points[0].x));
    }
  }
  // The boxes have names; what is drawn in them would be read as single words.
  for (const drawn of document.querySelectorAll('svg')) drawn.setAttribute('aria-hidden', 'true');
}

// --- the filmstrip ------------------------------------------------------------------------------

const film = {
  order: [], place: 0, large: null, hidden: new Set(),

  start() {
    const { moments, layers, legends, note } = page.film;
    byId('film').hidden = false;
    byId('film-note').textContent = note;
    const keys = [...new Set(moments.flatMap((m) => Object.keys(m.worse)))];
    byId('order').append(...keys.map((k) => element('option', { value: k }, `worst first: ${k}`)),
      element('option', { value: '' }, 'by time'));
    byId('layers').append(...layers.map((layer) => {
      const box = element('input', { type: 'checkbox', checked: true });
      box.addEventListener('change', () => {
        this.hidden[box.checked ? 'delete' : 'add'](layer);
        this.show();
      });
      return element('label', {}, box, layer);
    }));
    byId('legends').append(...legends.map(legend));
    byId('order').addEventListener('change', () => this.sort());
    byId('slider').addEventListener('input', () => this.go(Number(byId('slider').value)));
    byId('previous').addEventListener('click', () => this.go(this.place - 1));
    byId('next').addEventListener('click', () => this.go(this.place + 1));
    this.sort();
  },

  sort() {
    const key = byId('order').value;
    const worse = (m) => m.worse[key] ?? -Infinity;
    this.order = [...page.film.moments];
    if (key) this.order.sort((a, b) => (worse(a) === worse(b) ? 0 : worse(b) - worse(a)));
    byId('slider').max = this.order.length - 1;
    byId('strip').replaceChildren(...this.order.map((moment, i) => {
      const button = element('button', { type: 'button' });
      button.append(picture(moment, page.film.layers.find((l) => moment.pictures[l]), ''));
      button.setAttribute('aria-label', `Frame at ${moment.seconds.toFixed(2)} s`);
      button.addEventListener('click', () => this.go(i));
      return button;
    }));
    this.go(0);
  },

  go(place) {
    this.place = Math.min(Math.max(place, 0), this.order.length - 1);
    this.show();
  },

  seek(seconds) {
    const distance = (m) => Math.abs(m.seconds - seconds);
    this.go(this.order.reduce((best, m, i) => (distance(m) < distance(this.order[best]) ? i : best), 0));
    byId('film').scrollIntoView();
  },

  show() {
    const moment = this.order[this.place];
    const text = `${this.place + 1} of ${this.order.length}: ${moment.seconds.toFixed(2)} s. ${moment.caption}`;
    byId('slider').value = this.place;
    byId('slider').setAttribute('aria-valuetext', text);
    byId('caption').textContent = text;
    byId('previous').disabled = this.place === 0;
    byId('next').disabled = this.place === this.order.length - 1;
    const focused = document.activeElement?.closest('#stage figure')?.dataset.layer;
    byId('stage').replaceChildren(...page.film.layers
      .filter((layer) => moment.pictures[layer] && !this.hidden.has(layer))
      .map((layer) => this.figure(moment, layer)));
    if (focused) byId('stage').querySelector(`[data-layer="${CSS.escape(focused)}"] button`)?.focus();
    [...byId('strip').children].forEach((b, i) => {
      if (i === this.place) b.setAttribute('aria-current', 'true');
      else b.removeAttribute('aria-current');
    });
    const strip = byId('strip');
    const current = strip.children[this.place];
    strip.scrollLeft = current.offsetLeft - strip.offsetLeft - (strip.clientWidth - current.clientWidth) / 2;
  },

  figure(moment, layer) {
    const button = element('button', { type: 'button' }, picture(moment, layer, `${layer} at ${moment.seconds.toFixed(2)} s`));
    button.setAttribute('aria-pressed', String(layer === this.large));
    button.title = layer === this.large ? 'Smaller' : 'Larger';
    button.addEventListener('click', () => {
      this.large = layer === this.large ? null : layer;
      this.show();
    });
    const made = element('figure', { className: layer === this.large ? 'large' : '' }, button,
      element('figcaption', {}, layer));
    made.dataset.layer = layer;
    return made;
  },
};

function picture(moment, layer, alt) {
  return element('img', { src: `data:image/jpeg;base64,${moment.pictures[layer]}`, alt });
}

function legend(data) {
  const made = element('div', {}, element('strong', {}, `${data.title} `));
  if (data.ramp.length) {
    const ramp = element('span', { className: 'ramp' });
    ramp.style.background = `linear-gradient(to right, ${data.ramp.join(', ')})`;
    made.append(data.ends[0], ramp, data.ends[1]);
  }
  made.append(element('ul', {}, ...data.swatches.map(([color, name]) => {
    const swatch = element('span', { className: 'swatch' });
    swatch.style.background = color;
    return element('li', {}, swatch, name);
  })));
  return made;
}

// --- the whole ----------------------------------------------------------------------------------

function theme(name) {
  root.dataset.theme = name;
  byId('theme').setAttribute('aria-pressed', String(name === 'dark'));
  draw();
}

byId('subtitle').textContent = page.subtitle;
page.sections.forEach((section, index) => {
  const id = `section-${index}`;
  const heading = element('h2', { id: `${id}-title` }, section.title);
  const made = element('section', { id }, heading,
    ...(section.text ? [element('p', {}, section.text)] : []),
    element('div', { className: 'grid' }, ...section.tables.map(table), ...section.plots.map(card)));
  made.setAttribute('aria-labelledby', heading.id);
  if (index === 0) byId('main').insertBefore(made, byId('film'));
  else byId('main').append(made);
});
if (page.film) film.start();
for (const made of byId('main').querySelectorAll('section:not([hidden])')) {
  const title = made.querySelector('h2').textContent;
  byId('contents').append(element('li', {}, element('a', { href: `#${made.id}` }, title)));
}
byId('theme').addEventListener('click', () => theme(root.dataset.theme === 'dark' ? 'light' : 'dark'));
const system = matchMedia('(prefers-color-scheme: dark)');
system.addEventListener('change', () => theme(system.matches ? 'dark' : 'light'));
theme(system.matches ? 'dark' : 'light');
