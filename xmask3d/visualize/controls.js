"use strict";
// Mouse, wheel and fingers: turn, move, zoom, and pick a point.
const pointers = new Map();
let moved = 0, spread = 0, middle = null, several = false;
canvas.oncontextmenu = (event) => event.preventDefault();
canvas.onpointerdown = (event) => {
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, event);
  several = pointers.size > 1;
  spread = 0; middle = null;
  if (!several) moved = 0;
};
canvas.onpointerup = (event) => {
  pointers.delete(event.pointerId);
  spread = 0; middle = null;
  if (moved < (event.pointerType === "touch" ? 10 : 4) && event.button === 0 && !several) pick(event.clientX, event.clientY);
};
canvas.onpointercancel = (event) => { pointers.delete(event.pointerId); spread = 0; middle = null; };
function shift(dx, dy) {
  const { right, up } = axes(), step = eye.distance / (0.8 * canvas.clientHeight);
  for (let a = 0; a < 3; a++) eye.target[a] += step * (dy * up[a] - dx * right[a]);
}
canvas.onpointermove = (event) => {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const dx = event.clientX - before.clientX, dy = event.clientY - before.clientY;
  pointers.set(event.pointerId, event);
  moved += Math.abs(dx) + Math.abs(dy);
  if (pointers.size === 2) { // two fingers: pinch and move
    const [a, b] = [...pointers.values()], now = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
    const at = [(a.clientX + b.clientX) / 2, (a.clientY + b.clientY) / 2];
    if (spread) { zoom(spread / now); shift(at[0] - middle[0], at[1] - middle[1]); }
    spread = now; middle = at;
  } else if (event.buttons & 2 || event.shiftKey) shift(dx, dy);
  else if (!several) {
    eye.yaw -= dx * 0.006;
    eye.pitch = Math.min(Math.PI / 2 - 1e-3, Math.max(-1.4, eye.pitch + dy * 0.006));
  }
  draw();
};
function zoom(factor) { eye.distance = Math.min(12 * extent, Math.max(0.05, eye.distance * factor)); draw(); }
canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(Math.max(-1, Math.min(1, event.deltaY / 300)))); }, { passive: false });
