// props.value: JSON of {phase, image, text, line, announce, percent, error, hint, example}
const find = (selector) => element.querySelector(selector);
const stage = find(".stage"), open = find(".stage-open"), picture = open.querySelector("img");
const bar = find(".stage-bar"), status = find("[role=status]"), alert = find("[role=alert]");
const example = find(".stage-example"), lightbox = find(".lightbox");
let turn = 0;

// The new picture takes the place of the old one only when it is decoded: no empty frame in between.
const show = async (source, text) => {
  const mine = ++turn;
  if (source && picture.getAttribute("src") !== source) {
    const next = new Image();
    next.src = source;
    try { await next.decode(); } catch { /* shown as broken, with its text */ }
    if (mine !== turn) return;
    picture.src = source;
  }
  if (!source) picture.removeAttribute("src");
  picture.alt = text;
  open.hidden = !source;
};

const write = (node, text) => { if (node.textContent !== text) node.textContent = text; };

const render = () => {
  const v = JSON.parse(props.value || "{}");
  const isBusy = v.phase === "waiting" || v.phase === "running";
  stage.dataset.phase = v.phase;
  open.disabled = isBusy;
  show(v.image || "", v.text || "");
  write(find(".stage-line"), v.line || "");
  write(find(".stage-hint"), v.hint || "");
  write(alert, v.error || "");
  write(status, v.announce || "");
  write(example, v.example || "");
  example.hidden = !v.example;
  bar.setAttribute("aria-valuenow", String(Math.round(v.percent || 0)));
  bar.classList.toggle("is-busy", isBusy);
  bar.firstElementChild.style.width = (v.percent || 0) + "%";
};

const enlarge = (source, text) => {
  const large = lightbox.querySelector("img");
  large.src = source;
  large.alt = text;
  lightbox.showModal();
};
open.addEventListener("click", () => enlarge(picture.src, picture.alt));
stage.addEventListener("enlarge", ({ detail }) => enlarge(detail.image, detail.text));
lightbox.addEventListener("click", (event) => { if (event.target === lightbox) lightbox.close(); });
example.addEventListener("click", () => trigger("example", { text: example.textContent }));
watch("value", render);
render();
