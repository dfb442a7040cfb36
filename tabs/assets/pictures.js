// props.value: JSON of {label, empty, selected, pictures: [{id, image, thumb, text, is_starred}]}
const grid = element.querySelector(".pictures-grid");
const empty = element.querySelector(".pictures-empty");
let drawn = "";

const cell = (picture) => {
  const item = document.createElement("li");
  const button = document.createElement("button");
  const image = document.createElement("img");
  button.type = "button";
  button.dataset.id = picture.id;
  image.src = picture.thumb;
  image.alt = picture.text;
  image.loading = "lazy";
  image.decoding = "async";
  button.title = picture.text;
  button.append(image);
  if (picture.is_starred) {
    const star = document.createElement("span");
    star.className = "star";
    star.textContent = "★";
    star.setAttribute("role", "img");
    star.setAttribute("aria-label", "starred");
    button.append(star);
  }
  button.addEventListener("click", () => choose(picture));
  item.append(button);
  return item;
};

// While the stage shows the picture being made, another one opens above it: facts and buttons stay those of the stage.
const choose = (picture) => {
  const stage = document.querySelector("#stage .stage");
  if (element.closest("#result") && ["waiting", "running"].includes(stage?.dataset.phase))
    return stage.dispatchEvent(new CustomEvent("enlarge", { detail: picture }));
  mark(picture.id);
  trigger("pick", { id: picture.id });
};

const mark = (id) => {
  for (const button of grid.querySelectorAll("button"))
    button.setAttribute("aria-pressed", String(button.dataset.id === id));
};

const render = () => {
  const { label = "Pictures", empty: hint = "", selected = null, pictures = [] } = JSON.parse(props.value || "{}");
  const key = JSON.stringify(pictures);
  if (key !== drawn) grid.replaceChildren(...pictures.map(cell));
  drawn = key;
  grid.setAttribute("aria-label", label);
  grid.hidden = !pictures.length;
  empty.textContent = pictures.length ? "" : hint;
  mark(selected);
};

grid.addEventListener("keydown", (event) => {
  const steps = { ArrowRight: 1, ArrowLeft: -1 };
  if (!(event.key in steps)) return;
  const buttons = [...grid.querySelectorAll("button")];
  const next = buttons[buttons.indexOf(document.activeElement) + steps[event.key]];
  if (next) { event.preventDefault(); next.focus(); }
});
watch("value", render);
render();
