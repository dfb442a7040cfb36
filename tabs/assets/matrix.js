// props.value: JSON of {empty, columns: [{title, note}], rows: [{title, cells: [{id, thumb, text} | null]}], selected,
// line, percent (null: nothing runs)}
const find = (selector) => element.querySelector(selector);
const table = find("table"), head = find("thead"), body = find("tbody"), bar = find(".stage-bar");
let drawn = "";

const make = (tag, text) => {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  return node;
};

const heading = (column) => {
  const cell = make("th", column.title);
  cell.scope = "col";
  if (column.note) cell.append(make("small", column.note));
  return cell;
};

const picture = (cell) => {
  const place = make("td");
  if (!cell) return place;
  const button = make("button"), image = make("img");
  button.type = "button";
  button.dataset.id = cell.id;
  button.title = cell.text;
  image.src = cell.thumb;
  image.alt = cell.text;
  button.append(image);
  button.addEventListener("click", () => { mark(cell.id); trigger("pick", { id: cell.id }); });
  place.append(button);
  return place;
};

const row = ({ title, cells }) => {
  const above = make("tr"), name = make("th", title), line = make("tr");
  name.scope = "rowgroup";
  name.colSpan = cells.length;
  above.append(name);
  line.append(...cells.map(picture));
  return [above, line];
};

const mark = (id) => {
  for (const button of body.querySelectorAll("button"))
    button.setAttribute("aria-pressed", String(button.dataset.id === id));
};

const render = () => {
  const v = JSON.parse(props.value || "{}");
  const key = JSON.stringify([v.columns, v.rows]);
  if (key !== drawn) {
    const first = make("tr");
    first.append(...(v.columns || []).map(heading));
    head.replaceChildren(first);
    body.replaceChildren(...(v.rows || []).flatMap(row));
  }
  drawn = key;
  const isEmpty = !(v.rows || []).length, isBusy = v.percent !== null && v.percent !== undefined;
  table.hidden = isEmpty;
  find(".matrix-empty").textContent = isEmpty ? v.empty || "" : "";
  find(".matrix-line").textContent = v.line || "";
  bar.classList.toggle("is-busy", isBusy);
  bar.setAttribute("aria-valuenow", String(Math.round(v.percent || 0)));
  bar.firstElementChild.style.width = (v.percent || 0) + "%";
  mark(v.selected);
};

watch("value", render);
render();
