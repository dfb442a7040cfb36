// props.value: JSON of {label, empty, cards: [{id, title, line, note, image, is_on, is_usable}]}
const list = element.querySelector(".cards-list");
const empty = element.querySelector(".cards-empty");

const text = (className, content) => {
  const node = document.createElement("span");
  node.className = className;
  node.textContent = content;
  return node;
};

const card = ({ id, title, line, note, image, is_on, is_usable }) => {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "card";
  button.disabled = !is_usable;
  button.setAttribute("aria-pressed", String(is_on));
  const picture = document.createElement(image ? "img" : "span");
  picture.className = "card-picture";
  if (image) { picture.src = image; picture.alt = ""; picture.loading = "lazy"; }
  const words = document.createElement("span");
  words.className = "card-words";
  words.append(text("card-title", title), text("card-line", line));
  if (note) words.append(text("card-note", note));
  button.append(picture, words);
  button.addEventListener("click", () => trigger("pick", { id }));
  item.append(button);
  return item;
};

const render = () => {
  const { label = "", empty: hint = "", cards = [] } = JSON.parse(props.value || "{}");
  list.setAttribute("aria-label", label);
  list.replaceChildren(...cards.map(card));
  list.hidden = !cards.length;
  empty.textContent = cards.length ? "" : hint;
};
watch("value", render);
render();
