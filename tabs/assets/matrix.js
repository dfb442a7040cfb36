// props.value: JSON of {empty, columns: [{title, note, id?: can be picked}], rows: [{title, cells: [{id, thumb, text, note?} | null]}], selected,
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
  const cell = make("th"), words = make(column.id ? "button" : "span", column.title);
  cell.scope = "col";
  if (column.note) words.append(make("small", column.note));
  if (column.id) {
    words.type = "button";
    words.dataset.id = column.id;
    words.addEventListener("click", () => { mark(column.id); trigger("pick", { id: column.id }); });
  }
  cell.append(words);
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
  if (cell.note) place.append(make("small", cell.note));
  return place;
};

const row = ({ title, cells }) => {
  const above = make("tr"), name = make("th"), line = make("tr");
  name.append(make("span", title));
  name.scope = "rowgroup";
  name.colSpan = cells.length;
  above.append(name);
  line.append(...cells.map(picture));
  return [above, line];
};

// A column is picked with any picture of it: their ids begin with its own and a slash.
const mark = (id) => {
  const ids = [id, (id || "").split("/")[0]];
  for (const button of table.querySelectorAll("button"))
    button.setAttribute("aria-pressed", String(ids.includes(button.dataset.id)));
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
