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

for (const button of document.querySelectorAll("[data-copy]"))
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });

// Snippets name this proxy as the browser reaches it.
for (const place of document.querySelectorAll("[data-origin]"))
  place.textContent = JSON.stringify(location.origin + place.dataset.origin);

const live = document.querySelector("[data-live-switch]");
if (live) {
  let timer = 0;
  const refresh = async () => {
    try {
      const response = await fetch(location.href, { credentials: "same-origin" });
      if (response.ok) {
        const page = new DOMParser().parseFromString(await response.text(), "text/html");
        const fresh = page.querySelector("table[data-live]"), shown = document.querySelector("table[data-live]");
        if (fresh && shown) shown.replaceWith(document.adoptNode(fresh));
      } else live.checked = false;
    } catch { /* the next time, then */ }
    if (live.checked) timer = setTimeout(refresh, 2000);
  };
  live.addEventListener("change", () => { clearTimeout(timer); if (live.checked) refresh(); });
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
