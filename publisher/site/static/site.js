// Adds to pages what they can be read without: theme, search, sort, filters, copying, ages.
"use strict";

(() => {
  const root = document.documentElement;
  const THEMES = ["auto", "light", "dark"];
  const NAMES = { auto: "Automatic", light: "Light", dark: "Dark" };

  const stored = () => {
    try {
      const theme = localStorage.getItem("publisher-theme");
      return THEMES.includes(theme) ? theme : "auto";
    } catch {
      return "auto";
    }
  };
  const apply = (theme) => {
    if (theme === "auto") delete root.dataset.theme;
    else root.dataset.theme = theme;
  };
  apply(stored());
  root.dataset.script = "";

  const startTheme = () => {
    const button = document.querySelector("[data-theme-switch]");
    if (!button) return;
    let theme = stored();
    const show = () => {
      button.querySelector("[data-theme-name]").textContent = NAMES[theme];
      button.setAttribute("aria-label", `Colours: ${NAMES[theme]}`);
    };
    button.hidden = false;
    show();
    button.addEventListener("click", () => {
      theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
      try {
        localStorage.setItem("publisher-theme", theme);
      } catch {
        // The choice then lasts for this page.
      }
      apply(theme);
      show();
    });
  };

  const UNITS = [["year", 31557600], ["month", 2629800], ["day", 86400], ["hour", 3600], ["minute", 60]];
  const startAges = () => {
    const format = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
    const now = Date.now();
    for (const time of document.querySelectorAll("time[datetime]")) {
      const seconds = (Date.parse(time.dateTime) - now) / 1000;
      if (Number.isNaN(seconds)) continue;
      const unit = UNITS.find(([, length]) => Math.abs(seconds) >= length) ?? ["minute", 60];
      const age = format.format(Math.trunc(seconds / unit[1]), unit[0]);
      time.title = age;
      const slot = time.parentElement.querySelector(":scope > .age") ?? null;
      if (slot === null && time.closest("[data-ages], dd, .date, .history li")) {
        const shown = document.createElement("span");
        shown.className = "age";
        shown.textContent = age;
        time.after(" ", shown);
      }
    }
  };

  const startCopying = () => {
    for (const button of document.querySelectorAll("[data-copy]")) {
      button.hidden = false;
      button.addEventListener("click", async () => {
        const done = await copy(button.dataset.copy);
        button.dataset.done = done ? "copied" : "failed";
        announce(done ? "Copied" : "Copying failed");
        setTimeout(() => delete button.dataset.done, 1500);
      });
    }
  };
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Pages from files have no clipboard in some browsers.
      const area = document.createElement("textarea");
      area.value = text;
      area.className = "visually-hidden";
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  };
  let live = null;
  const announce = (text) => {
    if (live === null) {
      live = document.createElement("div");
      live.className = "visually-hidden";
      live.setAttribute("role", "status");
      document.querySelector("main").append(live);
    }
    live.textContent = text;
  };

  const startTable = (table) => {
    const body = table.tBodies[0];
    const rows = Array.from(body.rows);
    const controls = document.querySelector("[data-controls]");
    const heads = Array.from(table.tHead.rows[0].cells);
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const state = new URLSearchParams(location.hash.slice(1));

    const remember = () => {
      const text = state.toString();
      history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
    };
    const set = (key, value) => {
      if (value) state.set(key, value);
      else state.delete(key);
      remember();
    };

    const value = (row, column) => {
      const cell = row.cells[column];
      return cell.dataset.value ?? cell.textContent.trim();
    };
    const sort = (column, descending) => {
      const numeric = heads[column].dataset.sort === "number";
      const sign = descending ? -1 : 1;
      const order = rows.map((row, index) => [value(row, column), index]);
      order.sort(([a, i], [b, j]) => {
        const compared = numeric ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true });
        return sign * compared || i - j;
      });
      body.append(...order.map(([, index]) => rows[index]));
      heads.forEach((head, index) => {
        if (index === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        else head.removeAttribute("aria-sort");
      });
    };
    heads.forEach((head, column) => {
      if (!head.dataset.sort) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const present = head.getAttribute("aria-sort");
        const first = head.dataset.sort === "number" || head.classList.contains("date");
        const descending = present ? present === "ascending" : first;
        sort(column, descending);
        set("sort", `${descending ? "-" : ""}${column}`);
      });
    });
    const sorted = /^(-?)(\d+)$/.exec(state.get("sort") ?? "");
    if (sorted && heads[Number(sorted[2])]?.dataset.sort) sort(Number(sorted[2]), sorted[1] === "-");

    if (!controls) return;
    controls.hidden = false;
    const search = controls.querySelector("[data-search]");
    const filters = Array.from(controls.querySelectorAll("[data-filter]"));
    const count = controls.querySelector("[data-count]");
    const none = document.querySelector("[data-none]");
    const filter = () => {
      const words = (search?.value ?? "").toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, index) => {
        const hit =
          words.every((word) => texts[index].includes(word)) &&
          filters.every((each) => !each.value || row.dataset[each.dataset.filter].split("\n").includes(each.value));
        row.hidden = !hit;
        if (hit) shown += 1;
      });
      const all = rows.length.toLocaleString("en");
      count.textContent = shown === rows.length ? `${all} shown` : `${shown.toLocaleString("en")} of ${all} shown`;
      if (none) none.hidden = shown > 0;
    };
    if (search) {
      search.value = state.get("q") ?? "";
      search.addEventListener("input", () => {
        set("q", search.value.trim());
        filter();
      });
      document.addEventListener("keydown", (event) => {
        const typing = event.target.closest("input, select, textarea");
        if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
          event.preventDefault();
          search.focus();
        }
      });
    }
    for (const each of filters) {
      const wanted = state.get(each.dataset.filter) ?? "";
      if (Array.from(each.options).some((option) => option.value === wanted)) each.value = wanted;
      each.addEventListener("change", () => {
        set(each.dataset.filter, each.value);
        filter();
      });
    }
    filter();
  };

  document.addEventListener("DOMContentLoaded", () => {
    startTheme();
    const table = document.querySelector("table[data-table]");
    if (table) startTable(table);
    startCopying();
    startAges();
  });
})();
