"use strict";
// Before/after sliders: the range input covers the picture, so mouse, touch and arrow keys come with it.
const compare = (input) => input.parentElement.style.setProperty("--cut", `${input.value}%`);

document.addEventListener("input", (event) => {
  if (event.target.matches(".compare input")) compare(event.target);
});

// B swaps the sides, one swap per press: held keys do not flicker.
document.addEventListener("keydown", (event) => {
  const input = event.target;
  if (!input.matches(".compare input") || event.repeat || event.key.toLowerCase() !== "b") return;
  input.value = Number(input.value) > 50 ? 0 : 100;
  compare(input);
});

// F held down lets the sides flicker.
const flicker = (event, on) => {
  if (event.target.matches(".compare input") && event.key.toLowerCase() === "f") {
    event.target.parentElement.classList.toggle("flickering", on);
  }
};
document.addEventListener("keydown", (event) => flicker(event, true));
document.addEventListener("keyup", (event) => flicker(event, false));
document.addEventListener("focusout", (event) => event.target.parentElement?.classList.remove("flickering"));

// The loupe shows the same place of both sides, eight times as large as the picture's own pixels.
const ENLARGED = 8;
const loupe = document.createElement("div");
loupe.className = "loupe";
loupe.append(document.createElement("i"), document.createElement("i"));
document.addEventListener("pointermove", (event) => {
  const box = event.target.closest(".compare");
  if (!box || !document.getElementById("view-loupe").checked) {
    loupe.remove();
    return;
  }
  const frame = box.getBoundingClientRect();
  const at = [(event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height];
  [".gt", ".lq"].forEach((side, i) => {
    const shown = [...box.querySelectorAll(`img${side}`)].find((image) => image.offsetParent);
    const size = [shown.naturalWidth, shown.naturalHeight].map((n) => n * ENLARGED);
    const pane = loupe.children[i].style;
    pane.backgroundImage = `url("${shown.src}")`;
    pane.backgroundSize = `${size[0]}px ${size[1]}px`;
    pane.backgroundPosition = size.map((n, axis) => `${48 - Math.round(n * at[axis])}px`).join(" ");
  });
  Object.assign(loupe.style, { left: `${at[0] * 100}%`, top: `${at[1] * 100}%` });
  box.append(loupe);
});

// Browsers keep the sliders' places when a page is reloaded.
window.addEventListener("pageshow", () => document.querySelectorAll(".compare input").forEach(compare));

// Paper has no closed sections.
let opened = [];
window.addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details.on-paper:not([open])")];
  opened.forEach((details) => { details.open = true; });
});
window.addEventListener("afterprint", () => {
  opened.forEach((details) => { details.open = false; });
});
