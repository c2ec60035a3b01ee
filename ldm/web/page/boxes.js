// Boxes that are drawn with the mouse become lines of the text field, and what is in the text field is drawn.
const field = () => document.querySelector("#guide-boxes textarea, #guide-boxes input");
const board = element.querySelector("svg");
const word = element.querySelector("input");
const NS = "http://www.w3.org/2000/svg";
const COLOURS = ["#e61e3c", "#1e6ee6", "#14963c", "#c86e00", "#8c28b4", "#008c96"];
const place = (event) => {
  const box = board.getBoundingClientRect();
  const inside = (value) => Math.min(1, Math.max(0, value));
  return [inside((event.clientX - box.left) / box.width), inside((event.clientY - box.top) / box.height)];
};
const shape = (name, attributes) => {
  const one = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
  return one;
};
const draw = () => {
  board.querySelectorAll(".box").forEach((one) => one.remove());
  const parts = (field()?.value ?? "").split(";").map((part) => part.trim()).filter(Boolean);
  parts.forEach((part, index) => {
    const cut = part.lastIndexOf(":");
    if (cut < 0) return;
    for (const piece of part.slice(cut + 1).split(",")) {
      const sides = piece.trim().split(/\s+/).map(Number);
      if (sides.length !== 4 || sides.some(Number.isNaN)) continue;
      const [left, top, right, bottom] = sides.map((side) => side * 100);
      const colour = COLOURS[index % COLOURS.length];
      const group = shape("g", { class: "box" });
      group.append(shape("rect", { x: left, y: top, width: right - left, height: bottom - top, fill: colour + "33", stroke: colour, "stroke-width": 0.8 }));
      const label = shape("text", { x: left + 1.5, y: top + 5, fill: colour, "font-size": 4.5, "font-weight": 600 });
      label.textContent = part.slice(0, cut).trim();
      group.append(label);
      board.append(group);
    }
  });
};
const write = (text) => {
  const target = field();
  const setter = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(target), "value").set;
  setter.call(target, text);
  target.dispatchEvent(new Event("input", { bubbles: true }));
  draw();
};
let from = null, sketch = null;
board.addEventListener("pointerdown", (event) => {
  from = place(event);
  board.setPointerCapture(event.pointerId);
  sketch = shape("rect", { fill: "none", stroke: "currentColor", "stroke-dasharray": "2 1.5", "stroke-width": 0.6 });
  board.append(sketch);
});
board.addEventListener("pointermove", (event) => {
  if (!from) return;
  const to = place(event);
  const [left, top] = [Math.min(from[0], to[0]) * 100, Math.min(from[1], to[1]) * 100];
  const sides = { x: left, y: top, width: Math.abs(from[0] - to[0]) * 100, height: Math.abs(from[1] - to[1]) * 100 };
  for (const [key, value] of Object.entries(sides)) sketch.setAttribute(key, value);
});
board.addEventListener("pointerup", (event) => {
  if (!from) return;
  const to = place(event);
  const sides = [Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[0], to[0]), Math.max(from[1], to[1])];
  from = null;
  sketch.remove();
  if (sides[2] - sides[0] < 0.02 || sides[3] - sides[1] < 0.02) return;
  const name = word.value.trim();
  if (!name) { word.focus(); word.reportValidity(); return; }
  const now = field().value.trim().replace(/;\s*$/, "");
  write((now ? now + "; " : "") + name + ": " + sides.map((side) => side.toFixed(2)).join(" "));
  word.value = "";
});
document.addEventListener("input", (event) => { if (event.target === field()) draw(); });
setTimeout(draw, 500);
