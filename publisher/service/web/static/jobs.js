// Follows the log of a running job, and shows its progress. Without it, the page shows the log so far.
"use strict";

(() => {
  const MOST_LINES = 2000;
  const log = document.querySelector("[data-log][data-live]");
  if (!log || !("EventSource" in window)) return;
  const state = document.querySelector("[data-state] .state");
  const connection = document.querySelector("[data-connection]");
  const progress = document.querySelector("[data-progress]");
  const images = progress.querySelector("[data-images]");
  const bytes = progress.querySelector("[data-bytes]");
  const steps = progress.querySelector("[data-steps]");
  const count = { requests: 0, done: 0, layers: 0, finished: 0 };
  const working = new Map();

  const show = (part, value, most, noun) => {
    part.hidden = most === 0;
    const bar = part.querySelector("progress");
    bar.max = Math.max(most, 1);
    bar.value = Math.min(value, most);
    part.querySelector("output").textContent = `${value} of ${most} ${noun}`;
  };

  const measure = (event) => {
    const data = typeof event.data === "object" && event.data !== null ? event.data : {};
    if (event.event === "command-started") {
      Object.assign(count, { requests: 0, done: 0, layers: 0, finished: 0 });
      working.clear();
    }
    if (event.event === "run-started") count.requests += Number(data.requests) || 0;
    if (event.event === "layers-expected") count.layers += Number(data.layers) || 0;
    if (event.event === "layer-done") count.finished += 1;
    if (event.event === "image-step" && event.image) working.set(event.image, String(data.step ?? event.message));
    if (event.event === "image-done") {
      count.done += 1;
      working.delete(event.image);
    }
    progress.hidden = count.requests + count.layers === 0;
    show(images, count.done, count.requests, "done");
    show(bytes, count.finished, count.layers, "unpacked");
    steps.replaceChildren(
      ...[...working].slice(-8).map(([image, step]) => {
        const item = document.createElement("li");
        item.textContent = `${image}: ${step}`;
        return item;
      }),
    );
  };

  const add = (event) => {
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    const line = document.createElement("li");
    const level = String(event.level ?? "info");
    line.className = `log-${/^[a-z]+$/.test(level) ? level : "info"}`;
    const time = document.createElement("time");
    time.dateTime = String(event.time ?? "");
    time.textContent = time.dateTime.slice(11, 19);
    line.append(time, " ");
    if (typeof event.image === "string") {
      const image = document.createElement("b");
      image.textContent = event.image;
      line.append(image, " ");
    }
    line.append(String(event.message ?? ""));
    log.append(line);
    while (log.childElementCount > MOST_LINES) log.firstElementChild.remove();
    if (atEnd) log.scrollTop = log.scrollHeight;
  };

  const source = new EventSource(log.dataset.live);
  let isFirst = true;
  source.addEventListener("open", () => {
    connection.textContent = "Following the log.";
  });
  source.addEventListener("error", () => {
    connection.textContent =
      source.readyState === EventSource.CLOSED
        ? "The log cannot be followed at the moment: reload the page."
        : "The connection is lost; trying again.";
  });
  source.addEventListener("line", (message) => {
    if (isFirst) log.replaceChildren(); // the stream begins with the first line
    isFirst = false;
    state.className = "state state-running";
    state.textContent = "running";
    const event = JSON.parse(message.data).event;
    measure(event);
    add(event);
  });
  source.addEventListener("end", () => {
    source.close();
    window.location.reload();
  });
  window.addEventListener("pagehide", () => source.close());
})();
