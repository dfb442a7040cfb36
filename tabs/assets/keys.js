// Ctrl/Cmd+Enter generates, Esc stops: the buttons of the visible tab, unless a dialog or a list is open. What a click
// brings is scrolled to where it can be seen.
(() => {
  const visible = (id) => {
    const button = document.getElementById(id);
    return button && button.offsetParent && !button.disabled ? button : null;
  };
  const toStage = (id) => {
    const stage = document.querySelector(`#${id} .stage-frame`);
    if (!stage) return;
    const box = stage.getBoundingClientRect();
    if (box.top >= 0 && box.top < window.innerHeight * 0.6) return;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    stage.scrollIntoView({ block: "start", behavior: calm ? "auto" : "smooth" });
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      const button = visible("generate");
      if (!button) return;
      event.preventDefault();
      event.stopPropagation();
      if (!event.repeat) button.click();
    }
    if (event.key === "Escape" && !document.querySelector("dialog[open], [role=listbox]")) (visible("stop") ?? visible("library-stop"))?.click();
  }, true);
  document.addEventListener("click", ({ target }) => {
    if (target.closest("#generate")) toStage("stage");
    if (target.closest("#library-grid button")) toStage("library-stage");
  });
})();
