"use strict";
const scene = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const number = (value, digits) => value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1"); // no -0.00
const count = scene.count;
const quantised = unpack(scene.points, Uint16Array);
const rgb = unpack(scene.colors, Uint8Array);
let labels = unpack(scene.labels, Int16Array), names = scene.names;
let sureness = Float32Array.from(unpack(scene.confidence, Uint8Array), (value) => value / 255);
const objects = scene.objects ? unpack(scene.objects, Int32Array) : null;
const rowOf = scene.row ? unpack(scene.row, Int32Array) : null;
const heats = scene.heats.map((heat) => ({ ...heat, values: heat.values ? unpack(heat.values, Uint8Array) : null }));
const positions = new Float32Array(3 * count);
for (let i = 0; i < count; i++)
  for (let a = 0; a < 3; a++) positions[3 * i + a] = scene.low[a] + (quantised[3 * i + a] / 65535) * (scene.high[a] - scene.low[a]);
const [nearLow, nearHigh] = scene.near;
const center = [0, 1, 2].map((a) => (nearLow[a] + nearHigh[a]) / 2);
const radius = Math.max(0.1, Math.hypot(...[0, 1, 2].map((a) => nearHigh[a] - nearLow[a])) / 2);
const extent = Math.max(radius, Math.hypot(...[0, 1, 2].map((a) => Math.max(scene.high[a] - center[a], center[a] - scene.low[a]))));
// Modes: colours, labels, objects where there are some, then heat maps.
const firstHeat = objects ? 3 : 2;
const isObjects = () => objects !== null && mode === 2;
let mode = scene.start, picked = -1, answers = null;
const shownOf = { labels: null, objects: null };

// Well-known classes have the same colour in every scan, others what is left; beyond that colours repeat, and numbers tell.
function classColors(list) {
  const wanted = list.map((name) => scene.known[plainWord(name)]), chosen = wanted.map((place, i) => (place !== undefined && wanted.indexOf(place) === i ? place : -1));
  const free = scene.palette.map((_, place) => place).filter((place) => !chosen.includes(place));
  return chosen.map((place, i) => scene.palette[place >= 0 ? place : free.length ? free.shift() : i % scene.palette.length]);
}
let palette = classColors(names);
const objectColors = scene.object_names.map((_, i) => scene.palette[i % scene.palette.length]);
const objectTitles = scene.object_names.map((name, i) => `${name} ${scene.object_names.slice(0, i + 1).filter((other) => other === name).length}`);
const isNumbered = () => isObjects() || names.length > scene.palette.length;

// Colours of a heat map, dark blue to red.
const STOPS = [[48, 18, 59], [70, 107, 227], [40, 187, 236], [49, 242, 153], [162, 252, 60], [237, 208, 58], [251, 128, 34], [210, 49, 5]];
function heatColor(value) {
  const place = Math.min(0.9999, Math.max(0, value)) * (STOPS.length - 1), i = Math.floor(place), t = place - i;
  return STOPS[i].map((c, a) => c + t * (STOPS[i + 1][a] - c));
}
const heatTable = Array.from({ length: 256 }, (_, i) => heatColor(i / 255));
byId("scale").style.background = `linear-gradient(90deg, ${STOPS.map((c) => `rgb(${c})`).join(",")})`;

const canvas = byId("view");
const gl = canvas.getContext("webgl", { antialias: true, preserveDrawingBuffer: true });
if (!gl) byId("fail").style.display = "flex";
function shader(kind, source) {
  const made = gl.createShader(kind);
  gl.shaderSource(made, source);
  gl.compileShader(made);
  if (!gl.getShaderParameter(made, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(made));
  return made;
}
const program = gl.createProgram();
gl.attachShader(program, shader(gl.VERTEX_SHADER, `
  attribute vec3 place; attribute vec4 color; uniform mat4 camera; uniform float size; uniform float ceiling; varying vec4 tint;
  void main() { gl_Position = camera * vec4(place, 1.0); gl_PointSize = clamp(size / gl_Position.w, 1.0, 24.0); tint = place.z > ceiling ? vec4(0.0) : color; }`));
gl.attachShader(program, shader(gl.FRAGMENT_SHADER, `
  precision mediump float; varying vec4 tint;
  void main() { vec2 d = gl_PointCoord - 0.5; if (tint.a < 0.5 || dot(d, d) > 0.25) discard; gl_FragColor = vec4(tint.rgb, 1.0); }`));
gl.linkProgram(program);
gl.useProgram(program);
function attribute(name, data, size, type, normalised) {
  const buffer = gl.createBuffer(), place = gl.getAttribLocation(program, name);
  gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
  gl.bufferData(gl.ARRAY_BUFFER, data, gl.DYNAMIC_DRAW);
  gl.enableVertexAttribArray(place);
  gl.vertexAttribPointer(place, size, type, normalised, 0, 0);
  return buffer;
}
const shown = new Uint8Array(4 * count);
attribute("place", positions, 3, gl.FLOAT, false);
const colorBuffer = attribute("color", shown, 4, gl.UNSIGNED_BYTE, true);
gl.enable(gl.DEPTH_TEST);
gl.clearColor(0.082, 0.094, 0.114, 1);

function ceiling() { const cut = Number(byId("cut").value); return cut >= 1 ? Infinity : nearLow[2] + (cut + 1e-4) * (nearHigh[2] - nearLow[2]); }
function groupsShown() { return isObjects() ? shownOf.objects : shownOf.labels; }
function groupOf(i) { return isObjects() ? objects[i] : labels[i]; }
function isVisible(i) { return groupsShown()[groupOf(i) + 1]; }
// Classes are shaded by the scan's own brightness, so that shapes stay visible; unlabelled points are grey.
const brightness = Float32Array.from({ length: count }, (_, i) => rgb[3 * i] + rgb[3 * i + 1] + rgb[3 * i + 2]);
const bright = Math.max(3, brightness.slice().sort()[Math.floor(0.95 * count)] || 3);
function shaded(i, color) { const shade = 0.55 + 0.45 * Math.min(1, brightness[i] / bright); return color.map((c) => shade * c); }
function dimmed(i) { const grey = 30 + 0.15 * brightness[i]; return [grey, grey, grey]; }
// Values of a heat map as bytes; those of a page that answers are computed when they are first shown.
function bytesOf(heat) {
  if (!heat.values) {
    const places = answer().heat(heat.texts, heat.bases), scale = 255 / (heat.high - heat.low);
    heat.exact = places;
    heat.values = Uint8Array.from(rowOf, (row) => Math.round(Math.min(255, Math.max(0, scale * (places[row] - heat.low)))));
  }
  return heat.values;
}
function valueOf(heat, i) { bytesOf(heat); return heat.exact ? heat.exact[rowOf[i]] : heat.low + (heat.values[i] / 255) * (heat.high - heat.low); }
function recolor() {
  const heat = heats[mode - firstHeat], values = heat && bytesOf(heat);
  const groupColors = isObjects() ? objectColors : palette;
  for (let i = 0; i < count; i++) {
    const group = groupOf(i);
    const color = mode === 0 ? [rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2]]
      : heat ? heatTable[values[i]]
      : group < 0 ? dimmed(i) : shaded(i, groupColors[group]);
    shown[4 * i] = color[0]; shown[4 * i + 1] = color[1]; shown[4 * i + 2] = color[2];
    shown[4 * i + 3] = isVisible(i) ? 255 : 0;
  }
  gl.bindBuffer(gl.ARRAY_BUFFER, colorBuffer);
  gl.bufferSubData(gl.ARRAY_BUFFER, 0, shown);
  byId("heat").style.display = heat ? "block" : "none";
  if (heat) { byId("low").textContent = number(heat.low, 2); byId("high").textContent = number(heat.high, 2); }
  draw();
}

// An orbit camera about `target`, z up. The middle of the picture is that of the part which the panel leaves free.
const eye = { yaw: -2.2, pitch: 0.75, distance: 1.8 * radius, target: center.slice() };
const PRESETS = { corner: [-2.2, 0.75], top: [-Math.PI / 2, Math.PI / 2 - 1e-3], front: [-Math.PI / 2, 0.1], side: [0, 0.1] };
const FOCAL = 1.6;
function axes() {
  const cp = Math.cos(eye.pitch), sp = Math.sin(eye.pitch), cy = Math.cos(eye.yaw), sy = Math.sin(eye.yaw);
  const back = [cp * cy, cp * sy, sp], right = [-sy, cy, 0], up = [-sp * cy, -sp * sy, cp];
  return { back, right, up, from: eye.target.map((t, a) => t + eye.distance * back[a]) };
}
const isNarrow = () => window.matchMedia("(max-width: 700px)").matches;
// The free part: its middle and its half size, in halves of the canvas.
function freePart() {
  const panel = byId("panel").getBoundingClientRect(), width = canvas.clientWidth, height = canvas.clientHeight;
  if (isNarrow()) { const taken = Math.min(0.75, 1 - panel.top / height); return { x: 0, y: taken, halfX: 1, halfY: 1 - taken }; }
  const taken = panel.right / width;
  return taken > 0.6 ? { x: 0, y: 0, halfX: 1, halfY: 1 } : { x: taken, y: 0, halfX: 1 - taken, halfY: 1 };
}
// The nearest distance from which the middle part of the points, of which some stand for all, is in the free part of the picture.
const FITTED = 4000;
function fit() {
  const { back, right, up } = axes(), free = freePart(), aspect = canvas.clientWidth / canvas.clientHeight || 1;
  const along = (axis, place) => axis.reduce((sum, value, a) => sum + value * (place[a] - center[a]), 0);
  let distance = 0.1;
  for (let i = 0; i < count; i += Math.ceil(count / FITTED)) {
    const place = [0, 1, 2].map((a) => Math.min(nearHigh[a], Math.max(nearLow[a], positions[3 * i + a])));
    const across = (FOCAL / aspect) * Math.abs(along(right, place)) / (0.94 * free.halfX), high = FOCAL * Math.abs(along(up, place)) / (0.94 * free.halfY);
    distance = Math.max(distance, along(back, place) + Math.max(across, high));
  }
  eye.distance = distance;
  eye.target = center.slice();
  draw();
}
function cameraMatrix() {
  const { back, right, up, from } = axes(), aspect = canvas.clientWidth / canvas.clientHeight || 1, free = freePart();
  const near = Math.max(0.01, eye.distance / 200), far = eye.distance + 4 * extent;
  const dot = (v) => -(v[0] * from[0] + v[1] * from[1] + v[2] * from[2]);
  const depth = back.concat(dot(back)), w = depth.map((v) => -v);
  const rows = [right.map((v) => (FOCAL / aspect) * v).concat((FOCAL / aspect) * dot(right)), up.map((v) => FOCAL * v).concat(FOCAL * dot(up))];
  rows[0] = rows[0].map((v, i) => v + free.x * w[i]);
  rows[1] = rows[1].map((v, i) => v + free.y * w[i]);
  const a = (far + near) / (near - far), b = (2 * far * near) / (near - far);
  rows.push(depth.map((v, i) => a * v + (i === 3 ? b : 0)), w);
  return rows;
}
let waiting = false;
function draw() { if (!waiting) { waiting = true; requestAnimationFrame(render); } }
function render() {
  waiting = false;
  const ratio = Math.min(2, window.devicePixelRatio || 1);
  const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  gl.viewport(0, 0, width, height);
  gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  const rows = cameraMatrix(), columns = new Float32Array(16);
  for (let r = 0; r < 4; r++) for (let c = 0; c < 4; c++) columns[4 * c + r] = rows[r][c];
  gl.uniformMatrix4fv(gl.getUniformLocation(program, "camera"), false, columns);
  gl.uniform1f(gl.getUniformLocation(program, "size"), byId("size").value * 0.25 * scene.spacing * FOCAL * height);
  gl.uniform1f(gl.getUniformLocation(program, "ceiling"), ceiling());
  gl.drawArrays(gl.POINTS, 0, count);
  placeMark(rows);
  placeBadges(rows);
}
function project(rows, i) {
  const p = [positions[3 * i], positions[3 * i + 1], positions[3 * i + 2], 1];
  const clip = rows.map((row) => row[0] * p[0] + row[1] * p[1] + row[2] * p[2] + row[3]);
  return clip[3] <= 0 ? null : [(clip[0] / clip[3] + 1) / 2 * canvas.clientWidth, (1 - clip[1] / clip[3]) / 2 * canvas.clientHeight, clip[3]];
}
function placeMark(rows) {
  const spot = picked < 0 ? null : project(rows, picked), mark = byId("mark");
  mark.style.display = spot ? "block" : "none";
  if (spot) { mark.style.left = spot[0] + "px"; mark.style.top = spot[1] + "px"; }
}
// Names of objects, or numbers of classes where colours repeat, on the point nearest to the middle of each.
const MOST_BADGES = 60;
let badges = [];
function findBadges() {
  badges = [];
  byId("badges").replaceChildren();
  if (mode !== 1 && !isObjects()) return;
  if (!isNumbered()) return;
  const groups = new Map();
  for (let i = 0; i < count; i++) {
    const group = groupOf(i);
    if (group < 0) continue;
    if (!groups.has(group)) groups.set(group, { total: 0, sum: [0, 0, 0], best: -1, least: Infinity });
    const entry = groups.get(group);
    entry.total++;
    for (let a = 0; a < 3; a++) entry.sum[a] += positions[3 * i + a];
  }
  for (let i = 0; i < count; i++) {
    const entry = groups.get(groupOf(i));
    if (!entry) continue;
    const off = Math.hypot(...[0, 1, 2].map((a) => positions[3 * i + a] - entry.sum[a] / entry.total));
    if (off < entry.least) { entry.least = off; entry.best = i; }
  }
  const largest = [...groups].sort((a, b) => b[1].total - a[1].total).slice(0, MOST_BADGES);
  for (const [group, entry] of largest) {
    const made = document.createElement("span");
    made.textContent = isObjects() ? objectTitles[group] : group + 1;
    byId("badges").append(made);
    badges.push({ group, point: entry.best, made });
  }
}
// The largest come first; a badge that would cover one of them is left out.
function placeBadges(rows) {
  const top = ceiling(), placed = [];
  for (const { group, point, made } of badges) {
    const half = 4 * made.textContent.length + 6;
    const spot = groupsShown()[group + 1] && positions[3 * point + 2] <= top ? project(rows, point) : null;
    const isFree = spot && placed.every(([x, y, other]) => Math.abs(spot[0] - x) > half + other || Math.abs(spot[1] - y) > 17);
    made.style.display = isFree ? "block" : "none";
    if (isFree) { placed.push([spot[0], spot[1], half]); made.style.left = spot[0] + "px"; made.style.top = spot[1] + "px"; }
  }
}
function pick(x, y) {
  const rows = cameraMatrix(), top = ceiling();
  let best = -1, least = Infinity;
  for (let i = 0; i < count; i++) {
    if (!isVisible(i) || positions[3 * i + 2] > top) continue;
    const spot = project(rows, i);
    if (!spot) continue;
    const off = Math.hypot(spot[0] - x, spot[1] - y);
    // The nearest to the eye wins, but being off the cursor costs.
    const cost = spot[2] * (1 + 0.02 * off);
    if (off < 8 && cost < least) { least = cost; best = i; }
  }
  picked = best;
  showPicked();
  draw();
}
function cell(row, text) { const made = row.insertCell(); made.textContent = text; return made; }
function showPicked() {
  const box = byId("pick");
  box.style.display = picked < 0 ? "none" : "block";
  box.replaceChildren();
  if (picked < 0) return;
  const head = document.createElement("h1"), where = document.createElement("p"), table = document.createElement("table");
  head.textContent = labels[picked] < 0 ? "unlabelled" : names[labels[picked]];
  if (objects && objects[picked] >= 0) head.textContent += ` \u00b7 ${objectTitles[objects[picked]]}`;
  // Drawn upright; given in the scan's own frame, as in the tables and clouds.
  const own = (a) => [0, 1, 2].reduce((sum, b) => sum + scene.rotation[b][a] * positions[3 * picked + b], scene.origin[a]);
  const p = [0, 1, 2].map((a) => number(own(a), 2));
  where.textContent = `${p.join(", ")} m` + (labels[picked] < 0 ? "" : ` \u00b7 confidence ${sureness[picked].toFixed(2)}`);
  for (const heat of heats) {
    const value = valueOf(heat, picked), row = table.insertRow();
    cell(row, heat.name);
    const bar = document.createElement("div");
    bar.className = "bar";
    bar.style.width = `${Math.round(heat.values[picked] / 255 * 80)}px`;
    cell(row, "").append(bar);
    cell(row, number(value, 3));
  }
  box.append(head, where, table);
}

byId("title").textContent = scene.title;
byId("facts").textContent = scene.facts;
function listModes() {
  const titles = ["colours", "labels", ...(objects ? ["objects"] : []), ...heats.map((heat) => `heat map: ${heat.name}`)];
  byId("mode").replaceChildren(...titles.map((title, i) => new Option(title, i, false, i === mode)));
}
function show(chosen) { mode = chosen; byId("mode").value = chosen; buildLegend(); findBadges(); recolor(); }
byId("mode").onchange = (event) => show(Number(event.target.value));
function legendRow(group, name, color, total, shownGroups) {
  const row = document.createElement("label"), box = document.createElement("input"), swatch = document.createElement("span");
  row.className = "row";
  box.type = "checkbox";
  box.checked = shownGroups[group + 1];
  box.onchange = () => { shownGroups[group + 1] = box.checked; recolor(); };
  swatch.className = "swatch";
  swatch.style.background = `rgb(${color})`;
  swatch.style.color = color[0] + 2 * color[1] + color[2] / 2 > 400 ? "#000" : "#fff";
  if (group >= 0 && isNumbered() && !isObjects()) swatch.textContent = group + 1;
  const label = document.createElement("span"), share = document.createElement("span");
  label.className = "name"; label.textContent = label.title = name;
  share.className = "count"; share.textContent = `${(100 * total / count).toFixed(1)} %`;
  row.append(box, swatch, label, share);
  byId("legend").append(row);
}
function buildLegend() {
  const titles = isObjects() ? objectTitles : names, colors = isObjects() ? objectColors : palette, totals = new Uint32Array(titles.length + 1);
  const key = isObjects() ? "objects" : "labels";
  shownOf[key] = shownOf[key] || new Array(titles.length + 1).fill(true);
  for (let i = 0; i < count; i++) totals[groupOf(i) + 1]++;
  byId("kind").textContent = isObjects() ? "Objects" : "Classes";
  byId("legend").replaceChildren();
  titles.forEach((title, i) => { if (totals[i + 1]) legendRow(i, title, colors[i], totals[i + 1], shownOf[key]); });
  if (totals[0]) legendRow(-1, isObjects() ? "no object" : "unlabelled", [90, 90, 90], totals[0], shownOf[key]);
}
byId("all").onclick = () => {
  const boxes = [...document.querySelectorAll("#legend input")], on = !boxes.every((box) => box.checked);
  groupsShown().fill(on);
  for (const box of boxes) box.checked = on;
  recolor();
};

// New words: a phrase gives a heat map, several a label for every point.
function answer() { return (answers = answers || new Answers(scene.words)); }
const synonyms = (text) => text.split("|").map((word) => word.trim()).filter(Boolean);
function rangeOf(places) {
  const sorted = Float32Array.from(rowOf, (row) => places[row]).sort(), low = sorted[Math.floor(0.01 * (count - 1))];
  return [low, Math.max(low + 1e-6, sorted[Math.floor(0.995 * (count - 1))])];
}
function ask(text) {
  const start = performance.now(), asked = answer().wording.understand(text);
  const groups = asked.queries.map(synonyms).filter((group) => group.length), say = (...lines) => { byId("answer").textContent = lines.concat(asked.notes).join("\n"); };
  if (!groups.length) { byId("answer").textContent = ""; return; }
  if (groups.length === 1 && asked.unlearned.length) { say(); return; }
  if (groups.length === 1) {
    const name = groups[0].join("|"), known = heats.findIndex((heat) => heat.name === name);
    if (known >= 0) { say(); show(firstHeat + known); return; }
    const [low, high] = scene.scale || rangeOf(answer().heat(groups[0]));
    heats.push({ name, texts: groups[0], low, high, values: null });
    mode = firstHeat + heats.length - 1;
  } else {
    ({ labels, sureness } = answer().label(groups, rowOf));
    names = groups.map((group) => group[0]);
    palette = classColors(names);
    shownOf.labels = null;
    mode = 1;
  }
  listModes();
  show(mode);
  showPicked();
  say(`answered in ${((performance.now() - start) / 1000).toFixed(2)} s`);
}
byId("ask").onsubmit = (event) => {
  event.preventDefault();
  byId("words").blur();
  byId("answer").textContent = "\u2026";
  setTimeout(() => ask(byId("words").value), 20);
};
if (!scene.words) {
  byId("ask").style.display = "none";
  byId("answer").textContent = "This page knows the words under Show; the text encoder of this model is too large to travel with it. Ask others with xmask3d query.";
}

// A ceiling would hide the room.
const ROOM_HEIGHT = 1.5, BELOW_CEILING = 0.8;
byId("cut").value = nearHigh[2] - nearLow[2] > ROOM_HEIGHT ? BELOW_CEILING : 1;
byId("size").oninput = draw;
byId("cut").oninput = draw;
for (const button of document.querySelectorAll("button[data-view]"))
  button.onclick = () => { [eye.yaw, eye.pitch] = PRESETS[button.dataset.view]; fit(); };
byId("shot").onclick = () => {
  render();
  const link = document.createElement("a");
  link.download = `${scene.title}.png`;
  link.href = canvas.toDataURL("image/png");
  link.click();
};
function fold(on) {
  byId("panel").classList.toggle("folded", on);
  byId("fold").textContent = on ? "\u25b8" : "\u25be";
  draw();
}
byId("fold").onclick = () => fold(!byId("panel").classList.contains("folded"));

window.onresize = draw;
window.xmask3d = { eye, draw, render, pick, fit, ask, project: (i) => project(cameraMatrix(), i), picked: () => picked, answer, rowOf: () => rowOf, labels: () => labels, sureness: () => sureness };
buildLegend();
shownOf.labels = shownOf.labels || new Array(names.length + 1).fill(true);
if (isNarrow()) fold(true);
listModes();
show(mode);
fit();
render();
