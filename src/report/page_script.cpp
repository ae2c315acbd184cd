#include "report/page.h"

namespace llava {

std::string_view page_script() {
  return R"js(
'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const NS = 'http://www.w3.org/2000/svg';
const colour = i => `var(--c${i % 6})`;
const percent = v => (100 * v).toPrecision(3) + ' %';
const gibi = v => plain(v) + ' GiB';
const plain = v => v === 0 ? '0' : Math.abs(v) >= 1e6 || Math.abs(v) < 1e-3 ? v.toExponential(2)
  : String(+v.toPrecision(4));

function make(name, attributes, parent) {
  const node = document.createElementNS(NS, name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  if (parent) parent.append(node);
  return node;
}

// Exponential mean without the pull of the start towards zero; gaps stay gaps.
function smooth(values, keep) {
  let sum = 0, weight = 0;
  return values.map(v => {
    if (v === null) return null;
    sum = keep * sum + (1 - keep) * v;
    weight = keep * weight + (1 - keep);
    return sum / weight;
  });
}

// A number's text without zeros at the end of its fraction.
function short(text) {
  return text.replace(/(\.\d*?)0+(?!\d)/, '$1').replace(/\.(?!\d)/, '');
}

function linearTicks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map(m => m * power).find(s => s >= 0.8 * raw);
  const ticks = [];
  for (let t = Math.ceil(low / step - 1e-9) * step; t <= high + step * 1e-6; t += step) ticks.push(+t.toPrecision(12));
  return ticks;
}
function logTicks(low, high) {
  const ticks = [], decades = Math.log10(high / low);
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++)
    for (const m of decades < 1.5 ? [1, 2, 3, 5] : decades < 4 ? [1, 3] : [1]) {
      const t = m * 10 ** e;
      if (t >= low * 0.999 && t <= high * 1.001) ticks.push(t);
    }
  return ticks.length > 2 ? ticks : linearTicks(low, high, 5);
}

class Chart {
  constructor(spec) {
    Object.assign(this, {log: false, format: plain, ...spec});
    this.card = document.createElement('section');
    this.card.className = 'card';
    const head = document.createElement('div');
    head.className = 'head';
    const title = document.createElement('h3');
    title.textContent = this.title;
    const legend = document.createElement('div');
    legend.className = 'legend';
    if (this.lines.length > 1) for (const line of this.lines) {
      const entry = document.createElement('span'), mark = document.createElement('i');
      mark.style.background = line.colour;
      entry.append(mark, line.name);
      legend.append(entry);
    }
    this.button = document.createElement('button');
    this.button.textContent = 'log';
    this.button.title = 'logarithmic scale';
    this.button.addEventListener('click', () => { this.log = !this.log; this.draw(); });
    head.append(title, legend, this.button);
    this.svg = make('svg', {role: 'img', 'aria-label': this.title});
    this.tip = document.createElement('div');
    this.tip.className = 'tip';
    this.card.append(head, this.svg, this.tip);
    this.svg.addEventListener('pointermove', e => this.hover(e));
    this.svg.addEventListener('pointerleave', () => this.leave());
    document.getElementById('charts').append(this.card);
  }
  range() {
    let low = Infinity, high = -Infinity;
    for (const line of this.lines) {
      const shown = line.shown.filter(v => v !== null && (!this.log || v > 0)).sort((a, b) => a - b);
      if (!shown.length) continue;
      const cut = line.raw && shown.length > 50 ? Math.floor(shown.length / 200) : 0;  // single outliers may leave
      low = Math.min(low, shown[0]);
      high = Math.max(high, shown[shown.length - 1 - cut]);
    }
    if (!(low <= high)) return null;
    if (this.fromZero && !this.log) low = Math.min(low, 0);
    if (low === high) { const pad = Math.abs(low) * 0.1 || 1; high += pad; if (!this.fromZero && !this.log) low -= pad; }
    if (this.log && low === high) high = low * 10;
    const pad = this.log ? 0 : 0.04 * (high - low);
    return [this.fromZero && low === 0 ? 0 : low - pad, high + pad];
  }
  draw() {
    this.button.setAttribute('aria-pressed', this.log);
    const width = this.svg.clientWidth || 560, height = 230, left = 62, right = 10, top = 16, bottom = 24;
    this.svg.replaceChildren();
    this.svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    const keep = +document.getElementById('smooth').value;
    for (const line of this.lines) line.shown = line.raw && keep > 0 ? smooth(line.ys, keep) : line.ys;
    const range = this.range();
    if (!range) return;
    const [low, high] = range, first = data.first, last = Math.max(data.last, first + 1);
    const x = this.x = s => left + (s - first) / (last - first) * (width - left - right);
    this.step = px => first + (px - left) / (width - left - right) * (last - first);
    const f = this.log ? Math.log : v => v;
    const y = this.y = v => top + (f(high) - f(v)) / (f(high) - f(low)) * (height - top - bottom);
    for (const t of this.log ? logTicks(low, high) : linearTicks(low, high, 5)) {
      if (y(t) < top - 1 || y(t) > height - bottom + 1) continue;
      make('line', {class: 'grid', x1: left, x2: width - right, y1: y(t), y2: y(t)}, this.svg);
      make('text', {x: left - 8, y: y(t) + 4, 'text-anchor': 'end'}, this.svg).textContent = short(this.format(t));
    }
    for (const t of linearTicks(first, last, 6)) if (Number.isInteger(t))
      make('text', {x: x(t), y: height - 6, 'text-anchor': 'middle'}, this.svg).textContent = t;
    for (const stage of data.stages) if (stage.step > first) {
      make('line', {class: 'stage', x1: x(stage.step), x2: x(stage.step), y1: top, y2: height - bottom}, this.svg);
    }
    for (const stage of data.stages) if (data.stages.length > 1)
      make('text', {x: x(Math.max(stage.step, first)) + 4, y: top - 5}, this.svg).textContent = stage.stage;
    for (const step of data.bad) {
      const mark = make('path', {d: `M${x(step) - 4} ${height - bottom + 8}h8l-4 -8z`, fill: 'var(--bad)'}, this.svg);
      make('title', {}, mark).textContent = 'a bad step: ' + step;
    }
    const clip = 'clip' + this.title.replace(/\W/g, '');
    make('rect', {x: left, y: top - 4, width: width - left - right + 4, height: height - top - bottom + 8},
         make('clipPath', {id: clip}, this.svg));
    const plot = make('g', {'clip-path': `url(#${clip})`}, this.svg);
    for (const line of this.lines) {
      if (line.shown !== line.ys) this.path(plot, line.xs, line.ys, line.colour, 1, 0.22);
      this.path(plot, line.xs, line.shown, line.colour, 1.8, 1);
      if (line.dots) line.xs.forEach((s, i) => {
        if (line.ys[i] !== null) make('circle', {cx: x(s), cy: y(line.ys[i]), r: 3, fill: line.colour}, plot);
      });
    }
    this.cursor = make('line', {class: 'stage', y1: top, y2: height - bottom, visibility: 'hidden'}, this.svg);
  }
  path(parent, xs, ys, stroke, width, opacity) {
    let d = '', pen = false;
    xs.forEach((s, i) => {
      const v = ys[i];
      if (v === null || (this.log && v <= 0)) { pen = false; return; }
      d += `${pen ? 'L' : 'M'}${this.x(s).toFixed(1)} ${this.y(v).toFixed(1)}`;
      pen = true;
    });
    make('path', {d, fill: 'none', stroke, 'stroke-width': width, opacity, 'stroke-linejoin': 'round'}, parent);
  }
  hover(event) {
    if (!this.step) return;
    const box = this.svg.getBoundingClientRect(), at = this.step(event.clientX - box.left);
    const rows = [];
    let nearest = null;
    for (const line of this.lines) {
      let best = -1;
      line.xs.forEach((s, i) => {
        if (line.ys[i] !== null && (best < 0 || Math.abs(s - at) < Math.abs(line.xs[best] - at))) best = i;
      });
      if (best < 0) continue;
      if (nearest === null) nearest = line.xs[best];
      if (line.dots && rows.length && Math.abs(line.xs[best] - at) > (data.last - data.first) / 20) continue;
      rows.push([line, line.xs[best], line.ys[best], line.shown[best]]);
    }
    if (nearest === null) return;
    this.tip.replaceChildren(document.createTextNode('step ' + nearest));
    for (const [line, step, raw, shown] of rows) {
      const row = document.createElement('div'), mark = document.createElement('i');
      mark.style.background = line.colour;
      const smoothed = shown !== raw ? ` (smoothed ${this.format(shown)})` : '';
      row.append(mark, `${line.name} ${this.format(raw)}${smoothed}${step !== nearest ? ` at ${step}` : ''}`);
      this.tip.append(row);
    }
    const px = this.x(nearest);
    this.cursor.setAttribute('x1', px);
    this.cursor.setAttribute('x2', px);
    this.cursor.setAttribute('visibility', 'visible');
    this.tip.style.display = 'block';
    const room = this.card.clientWidth - this.tip.offsetWidth - 8;
    this.tip.style.left = Math.min(px + 28, Math.max(8, room)) + 'px';
    this.tip.style.top = Math.max(40, event.clientY - this.card.getBoundingClientRect().top - 10) + 'px';
  }
  leave() {
    this.tip.style.display = 'none';
    if (this.cursor) this.cursor.setAttribute('visibility', 'hidden');
  }
}

const line = (part, key, name, index, more) => data[part].curves[key] === undefined ? null
  : {name, colour: colour(index), xs: data[part].steps, ys: data[part].curves[key], ...more};
const charts = [];
function chart(title, lines, more) {
  lines = lines.filter(l => l && l.ys.some(v => v !== null));
  if (lines.length) charts.push(new Chart({title, lines, ...more}));
}
const raw = {raw: true}, dots = {dots: true};
chart('Loss', [line('train', 'loss', 'training', 0, raw), line('validation', 'eval_loss', 'validation', 1, dots)]);
chart('Right tokens (validation)', [line('validation', 'eval_token_accuracy', 'right', 1, dots)], {format: percent});
const rates = Object.keys(data.train.curves).filter(k => k.startsWith('lr/'));
const single = line('train', 'lr', rates.length ? 'all' : 'highest', 0);  // stages with one rate have no lr/…
if (single) single.ys = single.ys.map((v, i) => rates.some(k => data.train.curves[k][i] !== null) ? null : v);
chart('Learning rate', [single, ...rates.map((k, i) => line('train', k, k.slice(3), i + 1))], {fromZero: true});
chart('Gradient norm', [line('train', 'grad_norm', 'before clipping', 0, raw),
                        line('train', 'grad_norm_clipped', 'after', 2, raw)], {fromZero: true});
chart('Tokens a second', [line('train', 'tokens_per_second', 'all', 0, raw),
                          line('train', 'supervised_tokens_per_second', 'supervised', 2, raw)], {fromZero: true});
chart('Images a second', [line('train', 'images_per_second', 'images', 0, raw)], {fromZero: true});
chart('Model FLOPs utilisation', [line('train', 'mfu', 'MFU', 0, raw), line('train', 'hfu', 'HFU', 2, raw)]
  .filter((l, i, all) => i === 0 || (l && all[0] && l.ys.some((v, j) => v !== all[0].ys[j]))),
  {fromZero: true, format: percent});
chart('Waiting for data', [line('train', 'data_wait_fraction', 'part of the step', 1, raw)],
  {fromZero: true, format: percent});
const memory = line('train', 'peak_memory_bytes', 'peak', 3);
if (memory) memory.ys = memory.ys.map(v => v === null ? null : v / 2 ** 30);
chart('Peak memory', [memory], {fromZero: true, format: gibi});
const known = /^(loss|lr|lr\/.*|grad_norm.*|clip_coefficient|.*_per_second|.*_seconds|.*tokens|samples|images|mfu|hfu|model_flops|data_wait_fraction|peak_memory_bytes)$/;
for (const key of Object.keys(data.train.curves))
  if (!known.test(key)) chart(key, [line('train', key, key, charts.length, raw)]);

const draw = () => charts.forEach(c => c.draw());
document.getElementById('smooth').addEventListener('input', draw);
document.getElementById('alllog').addEventListener('change', e => {
  charts.forEach(c => { c.log = e.target.checked; });
  draw();
});
new ResizeObserver(draw).observe(document.getElementById('charts'));
draw();
)js";
}

}  // namespace llava
