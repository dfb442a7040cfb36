// props.value: JSON of {empty, systems: [{name, note, is_baseline, is_control}]}
const list = element.querySelector(".systems-list"), empty = element.querySelector(".systems-empty");

const make = (tag, className, text) => {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
};

const action = (label, name, does) => {
  const button = make("button", "systems-action", label);
  button.type = "button";
  button.setAttribute("aria-label", `${label}: ${name}`);
  button.addEventListener("click", () => trigger("pick", { name, does }));
  return button;
};

const row = ({ name, note, is_baseline, is_control }) => {
  const item = make("li", "systems-row", ""), words = make("span", "systems-words", "");
  words.append(make("span", "systems-name", name));
  if (note) words.append(make("span", "systems-note", note));
  item.append(words);
  if (is_baseline) item.append(make("span", "systems-badge", "Baseline"));
  else item.append(action("Make baseline", name, "baseline"));
  if (!is_control) item.append(action("Remove", name, "remove"));
  return item;
};

const render = () => {
  const { empty: hint = "", systems = [] } = JSON.parse(props.value || "{}");
  list.replaceChildren(...systems.map(row));
  list.hidden = !systems.length;
  empty.textContent = systems.length ? "" : hint;
};
watch("value", render);
render();
