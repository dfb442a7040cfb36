// props.value: the id of a job that waits to be followed.
watch("value", () => { if (props.value) trigger("play"); });
