// Tells when a person has paused changing the form: one event for a burst of keys.
const column = element.closest("#generate-columns");
let timer;
const later = () => { clearTimeout(timer); timer = setTimeout(() => trigger("settle"), 350); };
for (const kind of ["input", "change", "click", "keyup"]) column.addEventListener(kind, later);
