// props.value: JSON of {label, texts}
const list = element.querySelector(".chips");
const render = () => {
  const { label = "", texts = [] } = JSON.parse(props.value || "{}");
  list.setAttribute("aria-label", label);
  list.replaceChildren(...texts.map((text) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "chip";
    button.textContent = text;
    button.addEventListener("click", () => trigger("pick", { text }));
    item.append(button);
    return item;
  }));
};
watch("value", render);
render();
