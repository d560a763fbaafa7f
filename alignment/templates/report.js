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
