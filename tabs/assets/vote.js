// props.value: JSON of {turn, prompt, pictures: [left, right], token, count, can_undo, empty, problem,
// results: null or {lines: [text], tables: [{title, head: [text], rows: [[text]], note}]}}
const find = (selector) => element.querySelector(selector);
const section = find(".vote"), pair = find(".vote-pair"), answers = find(".vote-answers"), told = find(".vote-told");
const images = [...pair.querySelectorAll("img")];
const OUTCOMES = { 1: "first", 2: "tie", 3: "second", 4: "both bad", 5: "skip" };
const TYPING = "textarea, select, input:not([type=radio], [type=checkbox], [type=range])";
const PATIENCE_MS = 5000;
let token = "", turn = 0, isWaiting = false, patience = 0;

const wait = (is) => {
  clearTimeout(patience);
  isWaiting = is;
  section.setAttribute("aria-busy", String(is));
  if (is) patience = setTimeout(() => wait(false), PATIENCE_MS); // no answer came: the person may try again
};

const make = (tag, text, children = []) => {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  node.append(...children);
  return node;
};

const write = (selector, text) => {
  const node = find(selector);
  if (node.textContent !== text) node.textContent = text;
  return node;
};

const heading = (text, scope) => {
  const cell = make("th", text);
  cell.scope = scope;
  return cell;
};

const table = ({ title, head, rows, note }) => {
  const first = make("tr", "", head.map((text) => heading(text, "col")));
  const line = ([name, ...cells]) => make("tr", "", [heading(name, "row"), ...cells.map((text) => make("td", text))]);
  const whole = make("table", "", [make("thead", "", [first]), make("tbody", "", rows.map(line))]);
  const scroll = make("div", "", [whole]);
  whole.className = "figures";
  scroll.className = "figures-scroll";
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", title);
  const below = make("p", note);
  below.className = "note quiet";
  return [make("h3", title), scroll, ...(note ? [below] : [])];
};

const tell = (results) => {
  told.hidden = !results;
  const { lines = [], tables = [] } = results || {};
  told.replaceChildren(...lines.map((text) => make("p", text)), ...tables.flatMap(table));
};

// Both pictures take the place of the old ones together, once both are decoded: which one is ready first tells nothing.
const render = async () => {
  const v = JSON.parse(props.value || "{}");
  const mine = ++turn, sources = v.pictures || [];
  await Promise.all(sources.map((source) => {
    const next = new Image();
    next.src = source;
    return next.decode().catch(() => {}); // shown as broken, with its text
  }));
  if (mine !== turn) return;
  sources.forEach((source, place) => { images[place].src = source; });
  token = v.token || "";
  pair.hidden = answers.hidden = !token;
  write(".vote-prompt", v.prompt || "");
  write(".vote-empty", v.empty || "");
  write(".vote-count", v.count || "");
  write(".vote-problem", v.problem || "").hidden = !v.problem;
  find(".vote-undo").disabled = !v.can_undo;
  tell(v.results);
  wait(false);
};

const send = (name, data) => {
  if (isWaiting) return;
  wait(true);
  trigger(name, data);
};
const vote = (outcome) => { if (token) send("vote", { token, outcome }); };

const isSeen = () => {
  const box = pair.getBoundingClientRect();
  return pair.offsetParent !== null && box.bottom > 0 && box.top < window.innerHeight;
};
const onKey = (event) => {
  if (!element.isConnected) return document.removeEventListener("keydown", onKey);
  const outcome = OUTCOMES[event.key], { target } = event;
  if (!outcome || event.repeat || event.ctrlKey || event.metaKey || event.altKey || !isSeen()) return;
  if (target.isContentEditable || target.closest?.(TYPING)) return;
  if (document.querySelector("dialog[open], [role=listbox]")) return;
  event.preventDefault();
  vote(outcome);
};
document.addEventListener("keydown", onKey);
for (const button of answers.querySelectorAll("button"))
  button.addEventListener("click", () => vote(button.dataset.outcome));
find(".vote-undo").addEventListener("click", () => send("undo"));
find(".vote-results").addEventListener("click", () => send("results"));
watch("value", render);
render();
