// props.value: JSON of {label, note, items: [{prompt, why, pieces: [[kind, text]]}], buttons: [[event, text]]}
// Events (Gradio looks for their names in quotes): "take" with {prompt}, "more", "back", "close".
const panel = element.querySelector(".suggestions");
const [note, list, row] = ["p", "ul", ".row"].map((part) => panel.querySelector(part));
const make = (name, className, text = "") => {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
};
const button = (text, className, event, data) => {
  const made = make("button", className, text);
  made.type = "button";
  made.addEventListener("click", () => trigger(event, data));
  return made;
};
const shown = (item, place) => {
  const entry = make("li", "suggestion");
  const text = make("p", "words");
  for (const [kind, words] of item.pieces) {
    text.append(kind === "same" ? words : make(kind === "added" ? "ins" : "del", "", words));
  }
  const take = button("Use this", "chip", "take", { prompt: item.prompt });
  take.setAttribute("aria-label", `Use suggestion ${place + 1}`);
  entry.append(text, make("p", "note quiet", item.why), take);
  return entry;
};
const render = () => {
  const { label = "", note: said = "", items = [], buttons = [] } = JSON.parse(props.value || "{}");
  panel.hidden = !said && !items.length && !buttons.length;
  panel.setAttribute("aria-label", label);
  note.textContent = said;
  note.hidden = !said;
  list.replaceChildren(...items.map(shown));
  row.replaceChildren(...buttons.map(([event, text]) => button(text, "chip", event, {})));
};
watch("value", render);
render();
