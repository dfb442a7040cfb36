"use strict";
// Which axis lies across and which down is chosen; of each other axis one value shows.
const { axes, cells } = JSON.parse(document.getElementById("data").textContent);
const places = new Map(cells.map((cell) => [cell.at.join(), cell]));
const chosen = { across: 0, down: axes.length > 3 ? 1 : axes.length - 2, held: axes.map(() => 0) };

const make = (tag, text) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  return node;
};

const select = (title, labels, value, change) => {
  const label = make("label", title + " "), list = make("select");
  labels.forEach((text, index) => list.append(Object.assign(make("option", text), { value: index })));
  list.value = value;
  list.name = title;
  list.addEventListener("change", () => { change(Number(list.value)); draw(title); });
  label.append(list);
  return label;
};

const controls = () => {
  const titles = axes.map((axis) => axis.title);
  const swap = (one, other) => (value) => {
    if (chosen[other] === value) chosen[other] = chosen[one];
    chosen[one] = value;
  };
  const held = axes.flatMap((axis, index) => [chosen.across, chosen.down].includes(index) || axis.labels.length < 2 ? []
    : [select(axis.title, axis.labels, chosen.held[index], (value) => { chosen.held[index] = value; })]);
  return [
    select("Across", titles, chosen.across, swap("across", "down")),
    select("Down", titles, chosen.down, swap("down", "across")),
    ...held,
  ];
};

const picture = (across, down) => {
  const at = [...chosen.held], cell = make("td");
  at[chosen.across] = across;
  at[chosen.down] = down;
  const found = places.get(at.join());
  if (!found) return Object.assign(cell, { textContent: "–" });
  const image = make("img");
  image.src = found.src;
  image.alt = image.title = found.text;
  cell.append(image, make("small", found.note));
  return cell;
};

const heading = (text, scope) => Object.assign(make("th", text), { scope });

// The controls are made anew: whoever turns with the keyboard stays at the same one.
const draw = (changed) => {
  const pivot = document.getElementById("pivot");
  pivot.replaceChildren(...controls());
  if (changed) pivot.querySelector(`select[name="${CSS.escape(changed)}"]`)?.focus();
  const table = make("table"), head = make("tr");
  table.className = "pictures";
  head.append(make("td"), ...axes[chosen.across].labels.map((text) => heading(text, "col")));
  table.append(head);
  axes[chosen.down].labels.forEach((text, down) => {
    const row = make("tr");
    row.append(heading(text, "row"), ...axes[chosen.across].labels.map((_, across) => picture(across, down)));
    table.append(row);
  });
  document.getElementById("grid").replaceChildren(table);
};
draw();
