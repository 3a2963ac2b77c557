// What is nicer with a script. Everything that changes something works without it.
"use strict";
document.documentElement.classList.add("scripted");

for (const select of document.querySelectorAll("select[data-submit]"))
  select.addEventListener("change", () => select.form.requestSubmit());

// On a phone the pages are one line: the present one is to be seen.
const here = document.querySelector(".top nav [aria-current]"), pages = here && here.parentElement;
if (pages) pages.scrollLeft = here.offsetLeft - (pages.clientWidth - here.offsetWidth) / 2;

// A table that is wider than its place can be scrolled by the keyboard too.
const reachable = new ResizeObserver((entries) => {
  for (const { target } of entries)
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
});
for (const place of document.querySelectorAll(".scroll")) {
  if (place.scrollWidth > place.clientWidth) place.tabIndex = 0;
  reachable.observe(place);
}

// As on many sites: a slash goes to the search field.
document.addEventListener("keydown", (event) => {
  const field = document.querySelector("[data-search]");
  if (event.key !== "/" || !field || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea")) return;
  event.preventDefault();
  field.select();
});

for (const button of document.querySelectorAll("[data-confirm]"))
  button.addEventListener("click", (event) => { if (!confirm(button.dataset.confirm)) event.preventDefault(); });

// A form is sent once, however often its button is pressed; it can be again when one comes back to the page.
const sent = new WeakMap();
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post" || event.defaultPrevented) return;
  if (event.timeStamp - sent.get(form) < 5000) event.preventDefault();
  else sent.set(form, event.timeStamp);
});
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

// Browsers let scripts at the clipboard only where the connection is TLS, or on the same machine.
const copied = async (place) => {
  if (navigator.clipboard) return navigator.clipboard.writeText(place.textContent).then(() => true, () => false);
  const range = document.createRange(), chosen = getSelection();
  range.selectNodeContents(place);
  chosen.removeAllRanges();
  chosen.addRange(range);
  return document.execCommand("copy");
};
for (const button of document.querySelectorAll("[data-copy]"))
  button.addEventListener("click", async () => {
    const done = await copied(document.getElementById(button.dataset.copy));
    button.textContent = done ? "Copied" : "Selected: press Ctrl+C";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });

// What a plot says when hovered is said to the keyboard too: the arrow keys go from point to point.
for (const plot of document.querySelectorAll("svg.plot")) {
  const points = Array.from(plot.querySelectorAll(".hover")), reading = document.createElement("output");
  if (!points.length) continue;
  let at = -1;
  reading.className = "reading";
  plot.after(reading);
  plot.tabIndex = 0;
  const show = (to) => {
    if (points[at]) points[at].classList.remove("at");
    at = to;
    if (points[at]) points[at].classList.add("at");
    reading.textContent = points[at] ? points[at].textContent.split("\n").join(" · ") : "";
  };
  plot.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: points.length - 1 };
    if (!(event.key in steps)) return;
    event.preventDefault();
    show(Math.max(0, Math.min(points.length - 1, steps[event.key])));
  });
  plot.addEventListener("focus", () => { if (at < 0 && plot.matches(":focus-visible")) show(points.length - 1); });
  plot.addEventListener("blur", () => show(-1));
  plot.addEventListener("pointermove", (event) => show(points.indexOf(event.target)));
  plot.addEventListener("pointerleave", () => show(-1));
}

// Snippets name this proxy as the browser reaches it.
for (const place of document.querySelectorAll("[data-origin]"))
  place.textContent = JSON.stringify(location.origin + place.dataset.origin);

// One request at a time, two seconds apart, of a list that is never longer than a page: however many requests there are.
const live = document.querySelector("[data-live-switch]");
if (live) {
  const state = document.querySelector("[data-live-state]"), address = new URL(location.href);
  let timer = 0;
  const refresh = async () => {
    let said = "";
    try {
      const response = document.hidden ? null : await fetch(address, { credentials: "same-origin" });
      if (response && response.ok) {
        const page = new DOMParser().parseFromString(await response.text(), "text/html");
        const fresh = page.querySelector("[data-live]"), shown = document.querySelector("[data-live]");
        const focused = shown.contains(document.activeElement) && document.activeElement.getAttribute("href");
        const left = shown.querySelector(".scroll")?.scrollLeft;
        if (fresh) shown.replaceWith(document.adoptNode(fresh));
        if (left) fresh.querySelector(".scroll").scrollLeft = left;
        if (focused) fresh.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
      } else if (response) {
        said = response.status === 401 ? "Your session is over: load the page again to sign in." : `It stands still: status ${response.status}.`;
        if (response.status === 401) live.checked = false;
      }
    } catch { said = "The proxy cannot be reached; trying again."; }
    state.textContent = said;
    if (live.checked) timer = setTimeout(refresh, 2000);
  };
  const toggle = () => {
    clearTimeout(timer);
    if (live.checked) address.searchParams.set("live", "1"); else address.searchParams.delete("live");
    history.replaceState(null, "", address);
    if (live.checked) refresh();
  };
  live.addEventListener("change", toggle);
  if (live.checked) toggle();
}

const playground = document.getElementById("playground");
if (playground) {
  const answer = document.getElementById("answer"), fields = document.getElementById("fields");
  const stop = playground.querySelector("[data-stop]");
  const explained = {};
  const list = document.getElementById("explained").content.querySelectorAll("dt");
  for (const term of list) explained[term.textContent] = term.nextElementSibling.textContent;
  let running = null;

  const text = (event) => {
    if (event.choices) return (event.choices[0] && event.choices[0].delta && event.choices[0].delta.content) || "";
    if (event.type === "content_block_delta") return (event.delta && event.delta.text) || "";
    if (event.error) return "\n" + (event.error.message || JSON.stringify(event.error));
    return "";
  };
  const show = (response) => {
    fields.replaceChildren();
    const row = (name, value, title) => {
      const line = document.createElement("tr"), one = document.createElement("td"), two = document.createElement("td");
      const code = document.createElement("code");
      code.textContent = name;
      one.append(code);
      two.textContent = value;
      if (title) { const note = document.createElement("div"); note.className = "muted"; note.textContent = title; two.append(note); }
      line.append(one, two);
      fields.append(line);
    };
    row("status", response.status + " " + response.statusText);
    for (const [name, value] of response.headers) row(name, value, explained[name]);
  };
  playground.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (running) running.abort();
    const values = new FormData(playground), chat = playground.elements.chat.selectedOptions[0];
    const body = { model: values.get("model"), stream: true, messages: [{ role: "user", content: values.get("message") }] };
    if (chat.dataset.form === "anthropic") body.max_tokens = 1024;
    const controller = running = new AbortController();
    answer.textContent = "";
    stop.disabled = false;
    try {
      const response = await fetch(chat.value, {
        method: "POST", body: JSON.stringify(body), signal: controller.signal, credentials: "omit",
        headers: { "Content-Type": "application/json", "Authorization": "Bearer " + values.get("token") },
      });
      show(response);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        if (!response.ok || !(response.headers.get("content-type") || "").startsWith("text/event-stream")) { answer.textContent += value; continue; }
        rest += value;
        const lines = rest.split(/\r?\n/);
        rest = lines.pop();
        for (const line of lines)
          if (line.startsWith("data:") && line.slice(5).trim() !== "[DONE]")
            try { answer.textContent += text(JSON.parse(line.slice(5))); } catch { answer.textContent += line + "\n"; }
      }
    } catch (error) {
      answer.textContent += controller.signal.aborted ? "\n(stopped)" : "\n" + error;
    }
    if (running === controller) stop.disabled = true;
  });
  stop.addEventListener("click", () => running && running.abort());
}
